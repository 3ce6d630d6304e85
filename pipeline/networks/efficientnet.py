"""EfficientNet-Lite0 (Tan & Le 2019, without squeeze-and-excitation and with ReLU6): its blocks, and its weights from a file.

Blocks 0 to 10 make the map of an image, at stride 16. Blocks 11 to 15, a 1 x 1 convolution and a mean make the features of one
region, as conv5 of a ResNet does (He et al. 2016, appendix A).

Batch normalisation is frozen. Each is a scale and an offset of the convolution before it, which no training changes.

Shape shorthand: N regions, C channels, n cells a side, s stride, k kernel.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor, nn

from pipeline.networks.convolutions import NORM_PARTS, NormalisedConv2d, draw_weights, scale_and_offset
from pipeline.networks.region_head import RegionHead
from pipeline.networks.variants import Variant

STEM, LAST = 32, 1280  # channels of the first and of the last convolution
MAP_BLOCKS = 11  # the first blocks, which make the map
EPSILON = 1e-3  # of batch normalisation, in the network that the weights were trained in


@dataclass(frozen=True)
class Shape:
    """One block: channels before and after, k, s, and how many times wider the depthwise convolution is."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    expansion: int


def block_shapes() -> list[Shape]:
    """The 16 blocks."""
    stages = (  # repetitions, k, s of the first, expansion, channels
        (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
    shapes, inputs = [], STEM
    for repetitions, kernel, stride, expansion, outputs in stages:
        for number in range(repetitions):
            shapes.append(Shape(inputs, outputs, kernel, 1 if number else stride, expansion))
            inputs = outputs
    return shapes


class SameConv2d(NormalisedConv2d):
    """A convolution with TensorFlow's padding SAME: ceil(n / s) cells; an odd pixel of padding is at the right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups)

    def forward(self, values: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        if stride > 1:
            totals = [max((side - 1) // stride * stride + kernel - side, 0) for side in values.shape[:-3:-1]]
            values = nn.functional.pad(values, [part for total in totals for part in (total // 2, total - total // 2)])
        return super().forward(values)


class Block(nn.Module):
    """An inverted residual: 1 x 1 to more channels, a convolution per channel, 1 x 1 to the outputs, and the input if it fits."""

    def __init__(self, shape: Shape):
        super().__init__()
        wide = shape.inputs * shape.expansion
        self.expand = SameConv2d(shape.inputs, wide, 1) if shape.expansion > 1 else nn.Identity()
        self.depthwise = SameConv2d(wide, wide, shape.kernel, shape.stride, groups=wide)
        self.project = SameConv2d(wide, shape.outputs, 1)
        self.activation = nn.ReLU6()
        self.is_residual = shape.stride == 1 and shape.inputs == shape.outputs

    def forward(self, values: Tensor) -> Tensor:
        wide = values if isinstance(self.expand, nn.Identity) else self.activation(self.expand(values))
        outputs = self.project(self.activation(self.depthwise(wide)))
        return values + outputs if self.is_residual else outputs


def make_parts(variant: Variant) -> tuple[nn.Sequential, RegionHead]:
    """The trunk, one module per block after the first convolution, and the layers of regions.

    With random weights that keep the size of values.
    """
    shapes = block_shapes()
    trunk = nn.Sequential(nn.Sequential(SameConv2d(3, STEM, 3, 2), nn.ReLU6()), *map(Block, shapes[:MAP_BLOCKS]))
    first, *others = shapes[MAP_BLOCKS:]
    blocks = nn.Sequential(*map(Block, (replace(first, stride=variant.stride), *others)))
    head = RegionHead(
        blocks, channels=first.inputs, grid=variant.grid, out_features=LAST, last=SameConv2d(shapes[-1].outputs, LAST, 1),
        activation=nn.ReLU6(), last_map=(shapes[-1].outputs, variant.last_side),
    )
    draw_weights(chain(trunk.modules(), head.modules()))
    return trunk, head


def layer_names() -> dict[str, tuple[str, str]]:
    """For each convolution of the backbone its name in a file of weights, and that of its batch normalisation."""
    names = {"trunk.0.0": ("_conv_stem", "_bn0"), "fc.head.last": ("_conv_head", "_bn1")}
    for number, shape in enumerate(block_shapes()):
        ours = f"trunk.{number + 1}" if number < MAP_BLOCKS else f"fc.head.blocks.{number - MAP_BLOCKS}"
        for norm, part in enumerate(("expand", "depthwise", "project")):
            if part != "expand" or shape.expansion > 1:
                names[f"{ours}.{part}"] = f"_blocks.{number}._{part}_conv", f"_blocks.{number}._bn{norm}"
    return names


def file_shapes(expected: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """The names and shapes in a file of weights, without the classifier, for the backbone's own tensors `expected`."""
    shapes = {}
    for ours, (convolution, norm) in layer_names().items():
        shape = shapes[f"{convolution}.weight"] = expected[f"{ours}.weight"].shape
        shapes |= {f"{norm}.{part}": shape[:1] for part in NORM_PARTS}
    return shapes


def from_file(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's tensors from those of a file, which have `file_shapes`."""
    loaded: dict[str, Tensor] = {}
    for ours, (convolution, norm) in layer_names().items():
        scale, offset = scale_and_offset(tensors, norm, EPSILON)
        loaded |= {
            f"{ours}.weight": tensors[f"{convolution}.weight"], f"{ours}.scale": scale.float(), f"{ours}.offset": offset.float(),
        }
    return loaded
