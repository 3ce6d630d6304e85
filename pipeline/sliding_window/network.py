"""The network of the sliding windows: one trunk, one classifier and one box regressor on the pooled map (OverFeat).

It runs in two ways, with the same weights:

- on windows one by one, cropped and batched (`of_windows`): the naive way;
- on a whole image at once (`forward`): the trunk makes one map, the last pooling is repeated from 3 x 3 offsets, and the fully
  connected layers slide over the pooled maps as convolutions.

Both give the same scores where no layer pads its input. The trunks of `tiny`, `alexnet` and `vgg16` are therefore used without
padding. Layers whose branches are joined (SqueezeNet) need their padding: there the two differ near the border of a window.

Shape shorthand: N images or windows, D channels of the map, C classes, m x n positions of windows, S side of a window.
"""

import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.networks.backbones import Backbone, activated, make_backbone
from pipeline.networks.compute import apply_in_float32
from pipeline.networks.weights import load_tensors
from pipeline.sliding_window.layout import WindowLayout, layout_of
from pipeline.sliding_window.offsets import POOL, interleave, pool_at_offsets
from pipeline.sliding_window.trunk import window_trunk

CELLS = 2  # ours: pooled cells of a window in each direction; 5 in OverFeat
HIDDEN = 256  # ours: values of the layer before the outputs; 4096 in OverFeat


class Outputs(nn.Module):
    """Fully connected layers as convolutions: `cells` x `cells` pooled cells -> HIDDEN values -> `count` outputs."""

    def __init__(self, channels: int, cells: int, count: int, std: float):
        super().__init__()
        self.hidden, self.outputs = nn.Conv2d(channels, HIDDEN, cells), nn.Conv2d(HIDDEN, count, 1)
        nn.init.kaiming_normal_(self.hidden.weight, nonlinearity="relu")
        nn.init.normal_(self.outputs.weight, std=std)
        for layer in (self.hidden, self.outputs):
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, pooled: Tensor) -> Tensor:
        return apply_in_float32(self.outputs, activated(self.hidden(pooled), self.training))


class WindowNetwork(nn.Module):
    """Scores of C + 1 classes (0 is the background) and the four edges of one box, for each window.

    Edges are fractions of the window's side from its upper left corner, less EDGE_MEANS, divided by EDGE_DEVIATION. The trunk's
    map is multiplied by `map_scale`: on the large values of a pretrained trunk a new layer would diverge.
    """

    map_scale: Tensor

    def __init__(self, backbone: Backbone, num_classes: int, cells: int = CELLS):
        super().__init__()
        self.name, self.cells, channels = backbone.name, cells, backbone.view.channels
        self.norm = backbone.view.norm
        self.trunk = window_trunk(backbone)
        self.scores, self.edges = Outputs(channels, cells, num_classes + 1, 0.01), Outputs(channels, cells, 4, 0.001)
        self.register_buffer("map_scale", torch.ones(()))

    @property
    def layout(self) -> WindowLayout:
        return layout_of(self.name, self.cells)

    def make_map(self, images: Tensor) -> Tensor:
        return self.trunk(images) * self.map_scale

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[N x 3 x H x W] -> scores before the softmax [N x (C + 1) x m x n] and edges [N x 4 x m x n] of all windows."""
        # 1. One map for all windows. 2. Pooled from each offset. 3. The layers on each, interleaved.
        pooled = pool_at_offsets(self.make_map(images))
        shape, flat = pooled.shape[:3], pooled.flatten(0, 2)
        scores, edges = (interleave(layers(flat).unflatten(0, shape)) for layers in (self.scores, self.edges))
        return scores, edges

    def of_windows(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """[N x 3 x S x S] -> scores before the softmax [N x (C + 1)] and edges [N x 4]: each window on its own."""
        pooled = nn.functional.max_pool2d(self.make_map(crops), POOL)[:, :, :self.cells, :self.cells]
        return self.scores(pooled).flatten(1), self.edges(pooled).flatten(1)


def restore_windows(tensors: dict[str, Tensor], backbone: str, cells: int, source: str) -> WindowNetwork:
    """The network with these `tensors`. Raises PipelineError, naming `source`, where they do not fit."""
    if "scores.outputs.bias" not in tensors:
        raise PipelineError(f"{source}: not the weights of sliding windows: scores.outputs.bias is missing")
    model = WindowNetwork(make_backbone(backbone), len(tensors["scores.outputs.bias"]) - 1, cells)
    load_tensors(model, tensors, source)
    return model
