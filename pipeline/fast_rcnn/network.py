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

from pipeline.errors import PipelineError
from pipeline.networks.backbones import Backbone, activated, make_backbone
from pipeline.networks.compute import apply_in_float32
from pipeline.networks.max_pooling import distinct
from pipeline.networks.output_layers import OutputLayers
from pipeline.networks.region_head import RegionHead
from pipeline.networks.roi_pooling import roi_cells
from pipeline.networks.sgd import ParameterGroup, parameter_groups
from pipeline.networks.standard import Standard
from pipeline.networks.variants import ALIGN
from pipeline.networks.weights import load_tensors

HIDDEN = 1024  # ours: values of the new layer in a backbone that has none


class FastRCNN(OutputLayers):
    """The network. Its deltas are in units of the training targets' deviations until `fold` makes them deltas of boxes.

    A backbone without fully connected layers gets one, so that boxes and classes need not be linear in it. On frozen maps of
    SqueezeNet it had a validation mAP of 0.40 after 1000 steps, outputs on `pool5` 0.36 after 1500 and 0.40 after 3000.

    NOTE: on small networks with a head (`RegionHead.last_map`) boxes are linear in the head's last map; in ResNets, as in their
    releases, in its mean. The mean hardly tells left from right, which ImageNet's mirrored images taught the network to ignore:
    after 400 steps on photographs, predicted and true steps to the side had a correlation of 0.11; from the map, of 0.56. What
    both layers see is standardised: mAP 28 then, 18 without.
    """

    score_standard: Standard | None
    delta_standard: Standard | None

    def __init__(self, backbone: Backbone, num_classes: int, agnostic: bool = False):
        """With `agnostic` a region has one box, whatever its class (Dai et al. 2016, section 2)."""
        super().__init__(backbone, HIDDEN)
        # cls_score, bbox_pred in train.prototxt of rbgirshick/fast-rcnn, where the background has a box too.
        self.scores = self.output_layer(num_classes + 1, 0.01)
        head = self._map_head
        self.deltas = self.output_layer(4 * (1 if agnostic else num_classes), 0.001, head.last_map_size if head else 0)
        self.score_standard = self.delta_standard = None

    @property
    def _map_head(self) -> RegionHead | None:
        """The layer of regions, where boxes are linear in its last map."""
        head = self.backbone.region_head
        return head if head and head.last_map else None

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
        if self.is_calibrated:
            self.calibrate(torch.cat([self.pool(*example) for example in examples]))

    @property
    def is_calibrated(self) -> bool:
        """Whether what the first new layers see is standardised."""
        return self.starts_on_pool5 or self._map_head is not None

    def calibrate(self, pool5: Tensor) -> None:
        super().calibrate(pool5)
        if (head := self._map_head) and head.last_map:
            features, maps = head.with_map(pool5)
            self.score_standard = self.standard_of(features, features.shape[1], [self.scores])
            self.delta_standard = self.standard_of(maps, head.last_map[0], [self.deltas])

    def forward(self, pool5: Tensor) -> tuple[Tensor, Tensor]:
        """Scores before the softmax [R x C + 1], float32 at least, and deltas [R x C x 4] of regions with these `pool5`."""
        features, maps = self._seen(pool5)
        if self.score_standard is not None and self.delta_standard is not None:
            features, maps = self.score_standard(features), self.delta_standard(maps)
        deltas = self.deltas(maps).unflatten(1, (-1, 4))
        return apply_in_float32(self.scores, features), deltas.expand(-1, self.num_classes, -1)

    def _seen(self, pool5: Tensor) -> tuple[Tensor, Tensor]:
        """What the scores and what the deltas are linear in, as it is: [R x F] and [R x D]."""
        if head := self._map_head:
            return head.with_map(pool5)
        features = self.last_layer(pool5)
        return features, features

    def fold(self, means: np.ndarray, deviations: np.ndarray) -> None:
        """Moves the calibration and the targets' normalisation [C x 4] into the weights, as the release's snapshots do."""
        self.fold_calibration()
        if self.score_standard is not None and self.delta_standard is not None:
            self.score_standard.fold_into(self.scores)
            self.delta_standard.fold_into(self.deltas)
            self.score_standard = self.delta_standard = None
        shift, scale = self._normalisation(means, deviations)
        with torch.no_grad():
            self.deltas.weight *= scale[:, None]
            self.deltas.bias.mul_(scale).add_(shift)

    def unfold(self, means: np.ndarray, deviations: np.ndarray) -> None:
        """The inverse of `fold`; the calibration is not undone, it is made anew."""
        self.was_trained = True
        shift, scale = self._normalisation(means, deviations)
        with torch.no_grad():
            self.deltas.weight /= scale[:, None]
            self.deltas.bias.sub_(shift).div_(scale)

    def _normalisation(self, means: np.ndarray, deviations: np.ndarray) -> tuple[Tensor, Tensor]:
        """The shift and the scale of each output; of one box for all classes those of any class, which are the same."""
        rows = len(self.deltas.bias) // 4
        shift, scale = (torch.tensor(values[:rows], dtype=torch.float32).flatten() for values in (means, deviations))
        return shift.to(self.deltas.bias), scale.to(self.deltas.bias)


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
    agnostic = len(tensors.get("deltas.bias", ())) == 4
    model = FastRCNN(make_backbone(backbone), len(tensors["scores.bias"]) - 1, agnostic)
    first = {name: f"backbone.fc.{name}.0.weight" for name in model.backbone.fc}
    compress(model, {name: len(tensors[key]) for name, key in first.items() if key in tensors}, decompose=False)
    load_tensors(model, tensors, source)
    return model
