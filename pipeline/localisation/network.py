"""Classification + localisation in one network: a softmax head names the object of an image, a box head says where it is.

1. The trunk makes a map of the whole image, resized to a square. Convolutional layers of the backbone after it make the last map.
2. Features come from the backbone's fully connected layers, which slide over the last map as convolutions (OverFeat). Where the
   map is as large as these layers expect, there is one position. Where the backbone has no such layers or ends with a mean, the
   features are means over the whole map.
3. The softmax head: one linear layer on the features at each position. The scores of all positions make one softmax over classes
   and positions; a class has the sum over its positions. NOTE: OverFeat takes the largest score over positions, which trains one
   position at a time; the sum is near the largest, and trains all.
4. The box head, of 4 numbers or of 4 for each class at each position, in one of two places: after the last map (OverFeat, VGG),
   with a hidden layer of its own on the same windows, or one linear layer on the features (DeepPose, R-CNN).
5. The box of a class is the mean of those of the positions, each counted by its share in the score of the class. NOTE: OverFeat
   merges the boxes of the positions greedily. A mean can be trained: the box's loss also says which positions are on the object.

New heads see standardised channels, of the map and of the features: SqueezeNet's map deviates by 38.
A box is (x1, y1, x2, y2) in fractions of the image. The box head says its distance from the position's centre, less the
mean distance from the nearest position, in deviations of the training boxes.

Shape shorthand: N images, S side of the input, D channels and h x w cells of the last map, F features at P = p x q positions,
C classes, B boxes of the box head: 1 or C.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.networks.backbones import DROPOUT, Backbone, FullyConnected, PoolingGrid, make_backbone
from pipeline.networks.standard import channel_scale
from pipeline.networks.weights import load_tensors

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
AGNOSTIC, SPECIFIC = BOX_HEADS = "agnostic", "specific"
CONV, FC = PLACES = "conv", "fc"
HIDDEN = 512  # ours: values of the box head's hidden layer. OverFeat has two layers, of 4096 and 1024
NORM = 20.0  # of a standardised map: rcnn_scale_features.m of rbgirshick/rcnn brings the features of every layer to it
HEAD_STD = 0.01  # deviation of a new layer's weights, as in the releases' fine-tuning networks
LEAST_DEVIATION = 0.01  # of what is standardised. Boxes are fractions of a window, and may all be equal
LOSSES = ("class_loss", "box_loss")


@dataclass(frozen=True)
class Layout:
    """What makes a network: the name of its backbone, C, S, the numbers of its box head (BOX_HEADS) and its place (PLACES)."""

    backbone: str
    num_classes: int
    side: int
    box_head: str = AGNOSTIC
    after: str = CONV

    @property
    def num_boxes(self) -> int:
        """B: 1, or C."""
        return self.num_classes if self.box_head == SPECIFIC else 1


class Localiser(nn.Module):
    """The network. Raises PipelineError if the input is too small for the backbone's layers.

    `box_mean` and `box_deviation` [4] standardise boxes, `centres` [P x 4] are (x, y, x, y) of the positions; the others
    standardise the channels of the map [D] and the features [F].
    """

    box_mean: Tensor
    box_deviation: Tensor
    centres: Tensor
    map_shift: Tensor
    map_scale: Tensor
    feature_shift: Tensor
    feature_scale: Tensor

    def __init__(self, backbone: Backbone, layout: Layout):
        super().__init__()
        self.backbone, self.layout = backbone, layout
        channels, cells, size = self._shapes()
        window = self.window = (backbone.grid, backbone.grid) if slides(backbone) else cells
        self.scores = _new_layer(nn.Linear(size, layout.num_classes))
        numbers = 4 * layout.num_boxes
        hidden = _new_layer(nn.Conv2d(channels, HIDDEN, window))
        after_map = nn.Sequential(hidden, nn.ReLU(), nn.Dropout(DROPOUT), _new_layer(nn.Conv2d(HIDDEN, numbers, 1)))
        self.boxes = after_map if layout.after == CONV else nn.Sequential(_new_layer(nn.Conv2d(size, numbers, 1)))
        for name, length in ("map", channels), ("feature", size):
            self.register_buffer(f"{name}_shift", torch.zeros(length))
            self.register_buffer(f"{name}_scale", torch.ones(length))
        for name, values in ("box_mean", torch.zeros(4)), ("box_deviation", torch.ones(4)), ("centres", _centres(cells, window)):
            self.register_buffer(name, values)

    def last_map(self, images: Tensor) -> Tensor:
        """The last map [N x D x h x w] of normalised images [N x 3 x S x S]."""
        values, head = self.backbone.trunk(images), self.backbone.region_head
        if head is not None:
            return head.convolve(values)
        # A grid is the map of a crop as it is.
        is_grid = not self.backbone.fc or isinstance(self.backbone.pool, PoolingGrid)
        return values if is_grid else self.backbone.pool(values)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[N x 3 x S x S] normalised images -> scores [N x C] before the softmax, boxes [N x C x 4] in fractions."""
        values = self.last_map(images)
        features = (self._features(values) - self.feature_shift[:, None, None]) * self.feature_scale[:, None, None]
        scores = self.scores(features.flatten(2).transpose(1, 2)).float()  # [N x P x C]
        standard = (values - self.map_shift[:, None, None]) * self.map_scale[:, None, None]
        numbers = self.boxes(standard if self.layout.after == CONV else features)
        of_positions = numbers.flatten(2).transpose(1, 2).unflatten(2, (self.layout.num_boxes, 4)).float()  # [N x P x B x 4]
        boxes = self.centres[:, None] + self.box_mean + self.box_deviation * of_positions
        shares = scores.softmax(dim=1)[..., None]  # of the positions in the score of each class
        return scores.logsumexp(dim=1) - math.log(scores.shape[1]), (shares * boxes).sum(dim=1)

    def _features(self, values: Tensor) -> Tensor:
        """The features at each position, [N x F x p x q], from the last map."""
        if slides(self.backbone):
            return slide(self.backbone, values, self.training)
        head = self.backbone.region_head
        features = values.mean((2, 3)) if head is None else head.summarise(values)
        return nn.functional.dropout(features, DROPOUT, self.training)[..., None, None]

    @torch.no_grad()
    def calibrate(self, images: Tensor, boxes: np.ndarray, is_new: bool = True) -> None:
        """Standardises the map over these `images` [N x 3 x S x S], and boxes over `boxes` [M x 4], fractions of windows.

        So are the features, if the softmax head `is_new`. Dropout is off.
        """
        was_training = self.training
        self.eval()
        values = self.last_map(images).float()
        self._standardise("map", values, len(self.map_shift) * math.prod(self.window))
        if is_new:
            self._standardise("feature", self._features(values), len(self.feature_shift))
        targets = torch.from_numpy(np.asarray(boxes, np.float32))
        self.box_mean.copy_(self.distances_to_nearest(targets).mean(0))
        self.box_deviation.copy_(targets.std(0, correction=0).clamp(min=LEAST_DEVIATION))
        self.train(was_training)

    def _standardise(self, name: str, values: Tensor, size: int) -> None:
        """Gives channels of `values` [N x D x h x w] mean 0, and such deviations that the norm of `size` values is below NORM.

        Channels that deviate less than most keep a part of the difference: those that hardly fire here may fire later.
        """
        deviation = values.std((0, 2, 3))
        scale = channel_scale(deviation, NORM / size**0.5, max(deviation.mean().item(), LEAST_DEVIATION))
        self.get_buffer(f"{name}_shift").copy_(values.mean((0, 2, 3)))
        self.get_buffer(f"{name}_scale").copy_(scale)

    def distances_to_nearest(self, boxes: Tensor) -> Tensor:
        """Boxes [M x 4] less the centre of the position that is nearest to the middle of each: [M x 4]."""
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        nearest = torch.cdist(middles, self.centres[:, :2]).argmin(dim=1)
        return boxes - self.centres[nearest]

    def _shapes(self) -> tuple[int, tuple[int, int], int]:
        """D, (h, w) and F."""
        side, device = self.layout.side, next(self.backbone.parameters()).device
        try:
            with torch.no_grad():
                values = self.last_map(torch.zeros(1, 3, side, side, device=device))
                return values.shape[1], (values.shape[2], values.shape[3]), self._features(values).shape[1]
        except RuntimeError as error:
            advice = f"give at least {self.backbone.crop_size}"
            raise PipelineError(f"--localise-side {side}: too small for backbone {self.backbone.name}; {advice}") from error


def slides(backbone: Backbone) -> bool:
    """Whether the backbone has fully connected layers, which slide over the map."""
    return bool(backbone.fc) and backbone.region_head is None


def _centres(cells: tuple[int, int], window: tuple[int, int]) -> Tensor:
    """The centres of all windows of `window` cells in a map of `cells`, row by row: (x, y, x, y) in fractions [P x 4]."""
    rows, columns = ((torch.arange(all - own + 1) + own / 2) / all for all, own in zip(cells, window, strict=True))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y, x, y], dim=-1).flatten(0, 1)


def slide(backbone: Backbone, values: Tensor, training: bool = False) -> Tensor:
    """The backbone's fully connected layers as convolutions over a map [N x D x h x w]: [N x F x p x q], p x q positions.

    Dropout leaves out a feature at all positions.
    """
    kernel = backbone.grid
    for layer in backbone.fc.values():
        assert isinstance(layer, FullyConnected)
        weight = layer.weight.unflatten(1, (-1, kernel, kernel))
        values = nn.functional.relu(nn.functional.conv2d(values, weight, layer.bias))
        values, kernel = nn.functional.dropout2d(values, DROPOUT, training), 1
    return values


def _new_layer(layer: Layer) -> Layer:
    nn.init.normal_(layer.weight, std=HEAD_STD)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def heads_loss(scores: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The sums over images of both LOSSES [2]: cross entropy, and half the squared distance (Caffe's Euclidean loss).

    `boxes` [N x C x 4], of which only that of the true class counts, or [N x 1 x 4]; `labels` [N], `targets` [N x 4].
    """
    of_class = boxes[torch.arange(len(labels)), labels.clamp(max=boxes.shape[1] - 1)]
    distances = (of_class - targets).square().sum()
    return torch.stack([nn.functional.cross_entropy(scores, labels, reduction="sum"), distances / 2])


def restore_localiser(tensors: dict[str, Tensor], layout: Layout, source: str) -> Localiser:
    """The network with the `tensors` of one that was saved. Raises PipelineError, naming `source`, if they do not fit."""
    model = Localiser(make_backbone(layout.backbone), layout)
    load_tensors(model, tensors, source)
    return model
