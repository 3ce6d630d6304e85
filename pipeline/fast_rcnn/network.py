"""Fast R-CNN (Girshick 2015): one map per image, from which RoI pooling cuts each region, and one network for all else.

1. The trunk makes a map of the whole image.
2. RoI pooling makes `pool5` of each region: a grid of cells of the map, as large as the backbone's own pooling leaves.
3. The fully connected layers; then two sibling layers: scores of C + 1 classes (0 is the background), and one box per class.
4. Training: softmax loss plus smooth L1 loss of the true class's box, for regions that are foreground (section 2.3).
   Detection: softmax scores, moved boxes, suppression class by class.

Shape shorthand: R regions, C classes, D channels, h x w cells of the map.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import boxes as box_algebra
from pipeline.detection.candidates import RELEASE_LIMITS, Candidates, Limits, top_scoring
from pipeline.errors import PipelineError
from pipeline.fast_rcnn.region_network import RegionNetwork
from pipeline.networks.backbones import Backbone, activated, make_backbone
from pipeline.networks.compute import apply_in_float32
from pipeline.networks.max_pooling import distinct
from pipeline.networks.output_layers import OutputLayers
from pipeline.networks.roi_pooling import roi_cells
from pipeline.networks.sgd import ParameterGroup, parameter_groups
from pipeline.networks.variants import ALIGN
from pipeline.networks.weights import load_tensors
from pipeline.networks.whole_images import Scaling, conv_map, rois_of

LOSSES = ("class_loss", "box_loss")
HIDDEN = 1024  # ours: values of the new layer in a backbone that has none


class FastRCNN(OutputLayers):
    """The network. Its deltas are in units of the training targets' deviations until `fold` makes them deltas of boxes.

    A backbone without fully connected layers gets one, so that boxes and classes need not be linear in it. On frozen maps of
    SqueezeNet it had a validation mAP of 0.40 after 1000 steps, outputs on `pool5` 0.36 after 1500 and 0.40 after 3000.
    """

    def __init__(self, backbone: Backbone, num_classes: int):
        super().__init__(backbone, HIDDEN)
        # cls_score, bbox_pred in train.prototxt of rbgirshick/fast-rcnn, where the background has a box too.
        self.scores = self.output_layer(num_classes + 1, 0.01)
        self.deltas = self.output_layer(4 * num_classes, 0.001)

    def pool(self, conv_map: Tensor, rois: np.ndarray) -> Tensor:
        """`pool5` [R x D grid grid] of `rois` [R x 4] (see `rois_of`) in the map [D x h x w] of their image."""
        return self.backbone.roi_pool(conv_map, rois)

    @property
    def num_classes(self) -> int:
        return self.scores.out_features - 1

    def maps(self, conv_map: Tensor) -> Tensor:
        """As of `RegionNetwork`: regions are pooled from the trunk's map itself."""
        return conv_map

    def of_regions(self, maps: Tensor, rois: np.ndarray) -> tuple[Tensor, Tensor]:
        return self(self.pool(maps, rois))

    def distinct(self, rois: np.ndarray) -> np.ndarray:
        if self.backbone.pooling == ALIGN:  # which rounds no corner
            return np.sort(np.unique(rois, axis=0, return_index=True)[1])
        return np.sort(distinct(roi_cells(rois, 1 / self.backbone.view.stride))[0])

    def new_groups(self, rate: float) -> list[ParameterGroup]:
        return parameter_groups(self.scores, rate) + parameter_groups(self.deltas, rate)

    def calibrate_on(self, examples: Iterable[tuple[Tensor, np.ndarray]]) -> None:
        if self.starts_on_pool5:
            self.calibrate(torch.cat([self.pool(*example) for example in examples]))

    def forward(self, pool5: Tensor) -> tuple[Tensor, Tensor]:
        """Scores before the softmax [R x C + 1], float32 at least, and deltas [R x C x 4] of regions with these `pool5`."""
        values = self.last_layer(pool5)
        return apply_in_float32(self.scores, values), self.deltas(values).unflatten(1, (-1, 4))

    def fold(self, means: np.ndarray, deviations: np.ndarray) -> None:
        """Moves the calibration and the targets' normalisation [C x 4] into the weights, as the release's snapshots do."""
        self.fold_calibration()
        shift, scale = (torch.tensor(v, dtype=torch.float32).flatten().to(self.deltas.bias) for v in (means, deviations))
        with torch.no_grad():
            self.deltas.weight *= scale[:, None]
            self.deltas.bias.mul_(scale).add_(shift)


class Compressed(nn.Sequential):
    """Two linear layers in place of a fully connected one, with its ReLU and dropout."""

    def forward(self, values: Tensor) -> Tensor:
        return activated(super().forward(values), self.training)


def compress(model: FastRCNN, ranks: dict[str, int], decompose: bool = True) -> None:
    """Replaces fully connected layers, in place, by the products of two of the given ranks: truncated SVD (section 3.1).

    Without `decompose` the new layers only have the right shapes, for weights to be loaded into. Raises PipelineError for a layer
    that the backbone does not have, and for a rank above the layer's.
    """
    for name, rank in ranks.items():
        model.backbone.check_layer(name)
        layer = model.backbone.fc[name]
        assert isinstance(layer, nn.Linear)  # as every backbone's own are, until they are compressed
        if rank > min(layer.weight.shape):
            limit = min(layer.weight.shape)
            raise PipelineError(f"rank {rank} for {name}: the layer is {tuple(layer.weight.shape)}; give {limit} at most")
        first, second = nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features)
        if decompose:
            with torch.no_grad():
                left, values, right = torch.linalg.svd(layer.weight, full_matrices=False)
                first.weight.copy_(values[:rank, None] * right[:rank])
                second.weight.copy_(left[:, :rank])
                second.bias.copy_(layer.bias)
        model.backbone.fc[name] = Compressed(first, second).train(layer.training)


def restore_fast_rcnn(tensors: dict[str, Tensor], backbone: str, source: str) -> FastRCNN:
    """The network with these `tensors`, compressed if they are. Raises PipelineError, naming `source`, where they do not fit."""
    if "scores.bias" not in tensors:
        raise PipelineError(f"{source}: not the weights of Fast R-CNN: scores.bias is missing")
    model = FastRCNN(make_backbone(backbone), len(tensors["scores.bias"]) - 1)
    first = {name: f"backbone.fc.{name}.0.weight" for name in model.backbone.fc}
    compress(model, {name: len(tensors[key]) for name, key in first.items() if key in tensors}, decompose=False)
    load_tensors(model, tensors, source)
    return model


def fast_rcnn_loss(
    scores: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """The two losses [2], summed over regions: log loss, and smooth L1 of the true class's deltas (section 2.3).

    `scores` [R x C + 1], `deltas` [R x C x 4], `labels` [R], `targets` [R x 4], of which those of the background are left out;
    `class_weights` [C + 1] are factors of the log loss.
    """
    class_loss = nn.functional.cross_entropy(scores, labels, class_weights, reduction="sum")
    foreground = torch.nonzero(labels > 0)[:, 0]
    chosen = deltas[foreground, labels[foreground] - 1]
    box_loss = nn.functional.smooth_l1_loss(chosen, targets[foreground], reduction="sum", beta=1.0)
    return torch.stack([class_loss, box_loss])


class FastRCNNDetector:
    """Detections of one image from its pixels and proposals. `model`, Fast R-CNN's or R-FCN's, is ready for inference.

    Regions that pool the same cells are one (DEDUP_BOXES of the release's `test.py`).
    NOTE: of those the first stays; the release lets all stand for candidates, with the first one's scores and boxes. Candidates
    are chosen as for R-CNN (`top_scoring`), so that the chains differ in nothing else; the release's limits differ a little.
    """

    def __init__(
        self, model: RegionNetwork, device: torch.device, shorter: int, longest: int, limits: Limits = RELEASE_LIMITS
    ):
        self.model, self.device, self.shorter, self.longest = model, device, shorter, longest
        self.limits = limits

    def detect(self, pixels: np.ndarray, proposals: np.ndarray) -> Candidates:
        """The candidates among `proposals` [n x 4] in `pixels`, uint8 RGB [height x width x 3]."""
        height, width, _ = pixels.shape
        scaling = Scaling.of(height, width, self.shorter, self.longest)
        with torch.inference_mode():
            values = conv_map(self.model.backbone, pixels, scaling, self.device)
            return self.detect_in_map(values, scaling, proposals, height, width)

    def detect_in_map(self, values: Tensor, scaling: Scaling, proposals: np.ndarray, height: int, width: int) -> Candidates:
        """The candidates among `proposals` [n x 4], given the map of their image of `height` x `width` pixels."""
        rois = rois_of(proposals, scaling)
        kept = self.model.distinct(rois)
        boxes = np.asarray(proposals, np.float32)[kept]
        outputs, deltas = self.model.of_regions(self.model.maps(values), rois[kept])
        scores = outputs.softmax(dim=1)[:, 1:].cpu().numpy()
        moved = move_boxes(boxes, deltas.float().cpu().numpy())
        return top_scoring(scores, box_algebra.clip(moved, height, width), *self.limits)


def move_boxes(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Each class's box of each region: [n x 4], [n x C x 4] -> float32 [n x C x 4]."""
    rows = np.repeat(boxes, deltas.shape[1], axis=0)
    return box_algebra.decode(rows, deltas.reshape(-1, 4)).reshape(deltas.shape).astype(np.float32)
