"""Classification + localisation in one network: a softmax head names the object of an image, a box head says where it is.

1. The trunk makes a map of the whole image, resized to a square. Convolutional layers of the backbone after it make the last map.
2. Features come from the backbone's fully connected layers, which slide over the last map as convolutions (OverFeat). Where the
   map is as large as these layers expect, there is one position. SqueezeNet has no such layers; its features are the means over
   the map's cells, as in its own classifier.
3. The softmax head: one linear layer on the features at each position. The scores of all positions make one softmax over classes
   and positions; a class has the sum over its positions. NOTE: OverFeat takes the largest score over positions, which trains one
   position at a time; the sum is near the largest, and trains all.
4. The box head, of 4 numbers or of 4 for each class, in one of two places: after the last map (OverFeat, VGG), with a hidden
   layer of its own, or one linear layer on the features, the largest over the positions (DeepPose, R-CNN).

New heads see standardised channels, of the map and of the features: SqueezeNet's map deviates by 38.
A box is (x1, y1, x2, y2) in fractions of the image, standardised too: mean 0 and deviation 1 over training windows.

Shape shorthand: N images, S side of the input, D channels and h x w cells of the last map, F features at P = p x q positions,
C classes, B boxes for each image.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.networks.backbones import DROPOUT, Backbone, FullyConnected, PoolingGrid, make_backbone
from pipeline.networks.standard import channel_scale
from pipeline.networks.weights import load_tensors

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

    `box_mean` and `box_deviation` [4] are those of training windows; the others standardise the channels
    of the map [D] and the features [F].
    """

    box_mean: Tensor
    box_deviation: Tensor
    map_shift: Tensor
    map_scale: Tensor
    feature_shift: Tensor
    feature_scale: Tensor

    def __init__(self, backbone: Backbone, layout: Layout):
        super().__init__()
        self.backbone, self.layout = backbone, layout
        (channels, height, width), size = self._shapes()
        self.scores = _new_layer(size, layout.num_classes)
        numbers = 4 * layout.num_boxes
        hidden = FullyConnected.of(_new_layer(channels * height * width, HIDDEN))
        after_map = nn.Sequential(nn.Flatten(), hidden, _new_layer(HIDDEN, numbers))
        self.boxes = after_map if layout.after == CONV else nn.Sequential(_new_layer(size, numbers))
        for name, values in ("box_mean", torch.full((4,), 0.5)), ("box_deviation", torch.ones(4)):
            self.register_buffer(name, values)
        for name, length in ("map", channels), ("feature", size):
            self.register_buffer(f"{name}_shift", torch.zeros(length))
            self.register_buffer(f"{name}_scale", torch.ones(length))

    def last_map(self, images: Tensor) -> Tensor:
        """The last map [N x D x h x w] of normalised images [N x 3 x S x S]."""
        values = self.backbone.trunk(images)
        head = _convolutional(self.backbone)
        return values if head is None else head.convolve(values)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[N x 3 x S x S] normalised images -> scores [N x C] before the softmax, standardised boxes [N x B x 4]."""
        values = self.last_map(images)
        features = (self._features(values) - self.feature_shift[:, None, None]) * self.feature_scale[:, None, None]
        of_positions = self.scores(features.flatten(2).transpose(1, 2)).float()  # [N x P x C]
        scores = of_positions.logsumexp(dim=1) - math.log(of_positions.shape[1])
        if self.layout.after == CONV:
            boxes = self.boxes((values - self.map_shift[:, None, None]) * self.map_scale[:, None, None])
        else:
            boxes = self.boxes(features.amax((2, 3)))
        return scores, boxes.unflatten(1, (self.layout.num_boxes, 4))

    def _features(self, values: Tensor) -> Tensor:
        """The features at each position, [N x F x p x q], from the last map."""
        if self.backbone.fc and _convolutional(self.backbone) is None:
            return slide(self.backbone, values, self.training)
        head = _convolutional(self.backbone)
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
        self._standardise("map", values, values[0].numel())
        if is_new:
            self._standardise("feature", self._features(values), len(self.feature_shift))
        targets = torch.from_numpy(np.asarray(boxes, np.float32))
        self.box_mean.copy_(targets.mean(0))
        self.box_deviation.copy_(targets.std(0, correction=0).clamp(min=LEAST_DEVIATION))
        self.train(was_training)

    def _standardise(self, name: str, values: Tensor, size: int) -> None:
        """Gives channels of `values` [N x D x h x w] mean 0, and such a deviation that the norm of `size` values is NORM."""
        self.get_buffer(f"{name}_shift").copy_(values.mean((0, 2, 3)))
        self.get_buffer(f"{name}_scale").copy_(channel_scale(values.std((0, 2, 3)), NORM / size**0.5, LEAST_DEVIATION))

    def standardise(self, fractions: Tensor) -> Tensor:
        """Standardised boxes [... x 4] from `fractions`. Inverse of `fractions_of`."""
        return (fractions - self.box_mean) / self.box_deviation

    def fractions_of(self, boxes: Tensor) -> Tensor:
        """Boxes [... x 4] as fractions of the image, from standardised ones. Inverse of `standardise`."""
        return boxes.float() * self.box_deviation + self.box_mean

    def _shapes(self) -> tuple[torch.Size, int]:
        """The shape (D, h, w) of the last map, and the number of features."""
        side, device = self.layout.side, next(self.backbone.parameters()).device
        try:
            with torch.no_grad():
                values = self.last_map(torch.zeros(1, 3, side, side, device=device))
                return values.shape[1:], self._features(values).shape[1]
        except RuntimeError as error:
            advice = f"give at least {self.backbone.crop_size}"
            raise PipelineError(f"--localise-side {side}: too small for backbone {self.backbone.name}; {advice}") from error


def slide(backbone: Backbone, values: Tensor, training: bool = False) -> Tensor:
    """The backbone's fully connected layers as convolutions over a map [N x D x h x w]: [N x F x p x q], p x q positions.

    Dropout leaves out a feature at all positions.
    """
    if not isinstance(backbone.pool, PoolingGrid):  # such a grid is the map of a crop as it is
        values = backbone.pool(values)
    kernel = backbone.grid
    for layer in backbone.fc.values():
        assert isinstance(layer, FullyConnected)
        weight = layer.weight.unflatten(1, (-1, kernel, kernel))
        values = nn.functional.relu(nn.functional.conv2d(values, weight, layer.bias))
        values, kernel = nn.functional.dropout2d(values, DROPOUT, training), 1
    return values


def _convolutional(backbone: Backbone) -> Any:
    """The backbone's layer of regions if that is convolutional, else None. It makes the last map, and then features of it."""
    layers = list(backbone.fc.values())
    return layers[0] if len(layers) == 1 and hasattr(layers[0], "convolve") else None


def _new_layer(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=HEAD_STD)
    nn.init.zeros_(layer.bias)
    return layer


def heads_loss(scores: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The sums over images of both LOSSES [2]: cross entropy, and half the squared distance (Caffe's Euclidean loss).

    `boxes` [N x B x 4]; of several only that of the true class counts. `labels` [N], `targets` [N x 4].
    """
    of_class = boxes[torch.arange(len(labels)), labels.clamp(max=boxes.shape[1] - 1)]
    distances = (of_class.float() - targets).square().sum()
    return torch.stack([nn.functional.cross_entropy(scores.float(), labels, reduction="sum"), distances / 2])


def restore_localiser(tensors: dict[str, Tensor], layout: Layout, source: str) -> Localiser:
    """The network with the `tensors` of one that was saved. Raises PipelineError, naming `source`, if they do not fit."""
    model = Localiser(make_backbone(layout.backbone), layout)
    load_tensors(model, tensors, source)
    return model
