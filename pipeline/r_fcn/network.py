"""R-FCN (Dai et al. 2016): all layers run over the whole image; a region only averages cells of their maps.

1. The trunk makes a map of the whole image; a region proposal network proposes regions from it, as in Faster R-CNN.
2. The backbone's layers of one region, where that is possible, run over the map (`pipeline.r_fcn.dense`): convolutions, and a
   fully connected layer if it takes as many cells of a crop's map as there are. Others go. A new 1 x 1 convolution with ReLU
   follows, unless those layers end with a convolution.
3. Two sibling 1 x 1 convolutions make n n maps of each of C + 1 classes, and n n maps of each of 4 deltas: one box a region,
   whatever its class.
4. Position-sensitive pooling gives n x n bins a region and class; their mean is the class's score (its vote), and so for deltas.

NOTE: the release makes 8 n n maps of deltas, of which those of the background are never trained.

Shape shorthand: R regions, C classes, D channels, h x w cells of a map, n bins a side (the paper's k).
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.networks.backbones import Backbone, make_backbone
from pipeline.networks.compute import apply_in_float32
from pipeline.networks.sgd import ParameterGroup, parameter_groups
from pipeline.networks.standard import map_standard
from pipeline.networks.weights import load_tensors
from pipeline.r_fcn.dense import run_densely
from pipeline.r_fcn.position_pooling import ps_roi_pool, rounded_corners

HIDDEN = 1024  # conv_new_1 in models/pascal_voc/ResNet-101/rfcn_end2end/train_agnostic.prototxt of YuwenXiong/py-R-FCN
DEVIATION = 0.01  # of the weights of the output layers; the same file
DELTAS = 4


class RFCN(nn.Module):
    """The network. It takes over `backbone` and changes its layers of regions, in place.

    `shift` and `scale`, where `calibrate_on` has set them, standardise the channels that the new layer `hidden` sees. Deltas are
    in units of the training targets' deviations until `fold` makes them deltas of boxes.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone, num_classes: int, bins: int):
        super().__init__()
        self.backbone, self.bins, channels = backbone, bins, backbone.view.channels
        self.is_calibrated = False
        self.hidden: nn.Conv2d | None = None
        if head := backbone.region_head:
            run_densely(head.blocks)
            channels = [layer for layer in head.modules() if isinstance(layer, nn.Conv2d)][-1].out_channels
        if head is None or not isinstance(head.last, nn.Conv2d):
            self.register_buffer("shift", torch.zeros(channels))
            self.register_buffer("scale", torch.ones(channels))
            self.hidden = (None if head else sliding_layer(backbone)) or _new_layer(channels, HIDDEN)
            channels = self.hidden.out_channels
        if head is None:
            backbone.fc.clear()
        self.scores = _new_layer(channels, (num_classes + 1) * bins**2)
        self.deltas = _new_layer(channels, DELTAS * bins**2)

    @property
    def num_classes(self) -> int:
        return self.scores.out_channels // self.bins**2 - 1

    def _deep(self, conv_map: Tensor) -> Tensor:
        """[1 x D x h x w]: the map before the new layers."""
        values, head = conv_map[None], self.backbone.region_head
        return values if head is None else head.activation(head.last(head.convolve(values)))

    def maps(self, conv_map: Tensor) -> Tensor:
        """The trunk's map [D x h x w] -> n n maps of each score and then of each delta: [(C + 1 + 4) n n x h x w]."""
        values = self._deep(conv_map)
        if self.hidden is not None:
            standardised = (values - self.shift[:, None, None]) * self.scale[:, None, None]
            side = self.hidden.kernel_size[0]
            framed = nn.functional.pad(standardised.to(values.dtype), 2 * ((side - 1) // 2, side // 2))
            values = nn.functional.relu(self.hidden(framed))
        return torch.cat([apply_in_float32(self.scores, values), apply_in_float32(self.deltas, values)], dim=1)[0]

    def of_regions(self, maps: Tensor, rois: np.ndarray) -> tuple[Tensor, Tensor]:
        """Votes of the classes before the softmax [R x C + 1], and deltas [R x C x 4], the same ones for each class."""
        votes = ps_roi_pool(maps, rois, 1 / self.backbone.view.stride, self.bins).mean((2, 3))
        return votes[:, :-DELTAS], votes[:, None, -DELTAS:].expand(-1, self.num_classes, -1)

    def distinct(self, rois: np.ndarray) -> np.ndarray:
        return np.sort(np.unique(rounded_corners(rois), axis=0, return_index=True)[1])

    def new_groups(self, rate: float) -> list[ParameterGroup]:
        groups = parameter_groups(self.hidden) if self.hidden else []
        return groups + parameter_groups(self.scores, rate) + parameter_groups(self.deltas, rate)

    def calibrate_on(self, examples: Iterable[tuple[Tensor, np.ndarray]]) -> None:
        if self.hidden is not None and self.backbone.view.standardise and not self.is_calibrated:
            shift, scale = map_standard([self._deep(conv_map)[0] for conv_map, _ in examples])
            self.shift.copy_(shift)
            self.scale.copy_(scale)

    @torch.no_grad()
    def fold(self, means: np.ndarray, deviations: np.ndarray) -> None:
        """Moves the targets' normalisation, which must be one for all classes, into the weights of the boxes.

        Raises ValueError for means other than 0: the bins outside of a map, which are 0, would not have them.
        """
        scale = self._scale(means, deviations)
        self.deltas.weight *= scale[:, None, None, None]
        self.deltas.get_parameter("bias").mul_(scale)

    @torch.no_grad()
    def unfold(self, means: np.ndarray, deviations: np.ndarray) -> None:
        """The inverse of `fold`. The standard of the channels stays what the weights were trained on."""
        self.is_calibrated = True
        scale = self._scale(means, deviations)
        self.deltas.weight /= scale[:, None, None, None]
        self.deltas.get_parameter("bias").div_(scale)

    def _scale(self, means: np.ndarray, deviations: np.ndarray) -> Tensor:
        if np.any(means) or np.ptp(deviations, axis=0).any():
            raise ValueError("targets of class-agnostic boxes have mean 0 and the same deviations for all classes")
        return torch.from_numpy(deviations[0]).to(self.deltas.weight).repeat_interleave(self.bins**2)


def _new_layer(inputs: int, outputs: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 1)
    nn.init.normal_(layer.weight, std=DEVIATION)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def sliding_layer(backbone: Backbone) -> nn.Conv2d | None:
    """The only fully connected layer of `backbone` as a convolution that slides over maps, with the same weights.

    None unless it takes the map of a crop cell by cell: other layers take a map of half as many cells, after a pooling.
    """
    (layer, *others), grid = [*backbone.fc.values(), None], backbone.grid
    if not isinstance(layer, nn.Linear) or len(others) > 1 or backbone.crop_size != grid * backbone.view.stride:
        return None
    convolution = nn.Conv2d(backbone.view.channels, layer.out_features, grid)
    with torch.no_grad():
        convolution.weight.copy_(layer.weight.unflatten(1, (-1, grid, grid)))
        convolution.get_parameter("bias").copy_(layer.bias)
    return convolution


def restore_rfcn(tensors: dict[str, Tensor], backbone: str, source: str) -> RFCN:
    """The network with these `tensors`. Raises PipelineError, naming `source`, where they do not fit."""
    for name in ("scores.bias", "deltas.bias"):
        if name not in tensors:
            raise PipelineError(f"{source}: not the weights of R-FCN: {name} is missing")
    cells = len(tensors["deltas.bias"]) // DELTAS
    bins = round(cells**0.5)
    if not cells or bins**2 != cells or len(tensors["scores.bias"]) % cells:
        counts = f"{len(tensors['scores.bias'])} maps of scores and {len(tensors['deltas.bias'])} of deltas"
        raise PipelineError(f"{source}: not the weights of R-FCN: {counts} are no multiples of the square of a whole number")
    model = RFCN(make_backbone(backbone), len(tensors["scores.bias"]) // cells - 1, bins)
    load_tensors(model, tensors, source)
    return model
