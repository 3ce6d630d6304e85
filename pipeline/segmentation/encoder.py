"""The maps of a backbone that segmentation reads, at strides 8, 16 and 32, and where their cells lie in the image.

stride 32    VGG-16 and AlexNet: pool5, and fc6 and fc7 as convolutions, as in the release of FCN.
             EfficientNet-Lite0: blocks 11 to 15 and the last 1 x 1 convolution. Others: the trunk's map, max-pooled 2 x 2.
stride 16, 8 VGG-16 and AlexNet: the poolings' outputs, as in the release. Others: the last map of this stride.

The border of zeros around an image is the release's for VGG-16 and AlexNet: conv1 pads by 100, of which the layer's own padding
is a part. It makes fc6's window fit on an image of any size. Poolings go by Caffe's ceil rule, though torchvision's networks
were trained with the floor rule: maps of odd sides keep their last row.

Shape shorthand: N images, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.networks.backbones import DROPOUT, Backbone, FullyConnected
from pipeline.segmentation.geometry import Coordinates, Layer, coordinates, layer_of

DEEP = 32  # the stride of the deepest map
POOL = Layer(2, 2)  # what leads to it where the backbone has nothing of its own


@dataclass(frozen=True)
class Reading:
    """How segmentation reads a backbone: its `border` in pixels, and by stride the module of the trunk that makes each map.

    `channels` are those of the maps by stride. `released` marks the networks of FCN's release, which read maps as they are.
    """

    border: int
    modules: dict[int, int]
    channels: dict[int, int]
    released: bool = False


READINGS = {
    "vgg16": Reading(99, {16: 23, 8: 16}, {32: 4096, 16: 512, 8: 256}, released=True),
    "alexnet": Reading(98, {16: 5, 8: 2}, {32: 4096, 16: 192, 8: 64}, released=True),
    "squeezenet1_0": Reading(17, {16: 12, 8: 10}, {32: 512, 16: 512, 8: 512}),
    "efficientnet_lite0": Reading(15, {16: 11, 8: 5}, {32: 1280, 16: 112, 8: 40}),
    "tiny": Reading(7, {16: 12, 8: 6}, {32: 128, 16: 128, 8: 64}),
}


def framed(images: Tensor, border: int, whole_cells: bool, stride: int = DEEP) -> Tensor:
    """Normalised images [N x 3 x H x W] in a border of zeros. With `whole_cells` the sides are multiples of `stride`."""
    height, width = images.shape[2:]
    below, right = ((-(border + side) % stride) if whole_cells else border for side in (height, width))
    return nn.functional.pad(images, (border, right, border, below))


def apply_module(module: nn.Module, values: Tensor) -> Tensor:
    """`module`'s map of `values`, with poolings by Caffe's ceil rule."""
    if not isinstance(module, nn.MaxPool2d):
        return module(values)
    return nn.functional.max_pool2d(values, module.kernel_size, module.stride, module.padding, ceil_mode=True)


def convolutional_head(backbone: Backbone) -> Any:
    """The layer of regions that is convolutional, and so makes a map of a map; None if the backbone has none."""
    return next((layer for layer in backbone.fc.values() if hasattr(layer, "convolve")), None)


def slides(backbone: Backbone) -> bool:
    """Whether pool5, fc6 and fc7 lead to stride 32."""
    return READINGS[backbone.name].released


def encode(backbone: Backbone, images: Tensor, strides: Sequence[int], dropout: bool) -> list[Tensor]:
    """The maps at `strides` of normalised images [N x 3 x H x W]. `dropout`: whether fc6's features are dropped at random."""
    reading = READINGS[backbone.name]
    values, maps = framed(images, reading.border, backbone.view.whole_cells), {}
    by_module = {module: stride for stride, module in reading.modules.items()}
    for number, module in enumerate(backbone.trunk):
        values = apply_module(module, values)
        if by_module.get(number) in strides:
            maps[by_module[number]] = values
    if DEEP in strides:
        maps[DEEP] = _deepest(backbone, values, dropout)
    return [maps[stride] for stride in strides]


def _deepest(backbone: Backbone, values: Tensor, dropout: bool) -> Tensor:
    if slides(backbone):
        return _fully_connected(backbone, apply_module(backbone.pool, values), dropout)
    if head := convolutional_head(backbone):
        return head.activation(head.last(head.convolve(values)))
    return nn.functional.max_pool2d(values, POOL.kernel, POOL.stride, ceil_mode=True)


def _fully_connected(backbone: Backbone, values: Tensor, dropout: bool) -> Tensor:
    """The fully connected layers as convolutions without padding. What follows the last one does its dropout itself."""
    kernel = backbone.grid
    for number, layer in enumerate(backbone.fc.values()):
        assert isinstance(layer, FullyConnected)
        if number:
            values = nn.functional.dropout(values, DROPOUT, dropout)
        weight = layer.weight.unflatten(1, (-1, kernel, kernel))
        values, kernel = torch.relu(nn.functional.conv2d(values, weight, layer.bias)), 1
    return values


def map_layers(backbone: Backbone, stride: int) -> list[Layer]:
    """What the layers up to the map of this `stride` do to coordinates."""
    reading = READINGS[backbone.name]
    if stride != DEEP:
        return [layer_of(module) for module in backbone.trunk[: reading.modules[stride] + 1]]
    layers = [layer_of(module) for module in backbone.trunk]
    if slides(backbone):
        return [*layers, layer_of(backbone.pool), Layer(backbone.grid)]
    if head := convolutional_head(backbone):
        return [*layers, *(layer_of(block) for block in head.blocks)]
    return [*layers, POOL]


def map_coordinates(backbone: Backbone, stride: int) -> Coordinates:
    """Where the cells of the map of this `stride` lie in the image."""
    return coordinates(map_layers(backbone, stride), READINGS[backbone.name].border)
