"""Where the cells of maps lie in the image: sizes, crop offsets and bilinear kernels of fully convolutional networks.

Long et al. 2015, section 3; `coord_map.py` and `surgery.py` of shelhamer/fcn.berkeleyvision.org. All layers are square, and the
same holds for rows and columns.

A transposed convolution of kernel k and stride f puts cell j's kernel on cells f j .. f j + k - 1. Its bilinear kernel is a
triangle: cell i between two coarse cells gets from each the more, the nearer it is. The release has to crop what comes out; the
crop offset follows from the coordinates of both maps, and is the same for all image sizes.

Shape shorthand: n coarse cells along a side, m fine ones; f how many times finer these are; k the side of a kernel.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from pipeline.errors import PipelineError
from pipeline.networks.efficientnet import SameConv2d


@dataclass(frozen=True)
class Layer:
    """What a layer does to coordinates: its `kernel`, `stride`, and the cells of `padding` before the first."""

    kernel: int = 1
    stride: int = 1
    padding: int = 0

    def size(self, cells: int, ceil: bool = False) -> int:
        """How many cells the layer makes of `cells`, as much padding being at the end. With `ceil` as Caffe's pooling does.

        Caffe leaves out a window that begins in the padding at the end.
        """
        room = cells + 2 * self.padding - self.kernel
        count = (-(-room // self.stride) if ceil else room // self.stride) + 1
        return count - (ceil and (count - 1) * self.stride >= cells + self.padding)


@dataclass(frozen=True)
class Coordinates:
    """Cell i of a map is centred on pixel `stride` i + `offset` of the image; pixel 0 is the first."""

    stride: int = 1
    offset: float = 0.0

    def after(self, layer: Layer) -> "Coordinates":
        """The coordinates of the map that `layer` makes of this one."""
        centre = (layer.kernel - 1) / 2 - layer.padding
        return Coordinates(self.stride * layer.stride, self.offset + self.stride * centre)


def coordinates(layers: Iterable[Layer], border: int = 0) -> Coordinates:
    """The coordinates of the last map of `layers`, on an image with a `border` of zeros."""
    place = Coordinates(1, -border)
    for layer in layers:
        place = place.after(layer)
    return place


def reach(layers: Iterable[Layer]) -> int:
    """How many pixels a cell sees on either side of its centre, at most."""
    stride, field = 1, 1
    for layer in layers:
        field += (layer.kernel - 1) * stride
        stride *= layer.stride
    return math.ceil(field / 2)


def layer_of(module: nn.Module) -> Layer:
    """What a module of a trunk does to coordinates. In a block the branch with the largest kernel counts.

    A convolution with TensorFlow's padding is that of an even number of cells.
    """
    parts = [part for part in module.modules() if isinstance(part, (nn.Conv2d, nn.MaxPool2d))]
    return max(map(_layer_of_part, parts), key=lambda layer: layer.kernel, default=Layer())


def _layer_of_part(part: Any) -> Layer:
    kernel, stride, padding = (value if isinstance(value, int) else value[0]
                               for value in (part.kernel_size, part.stride, part.padding))
    if isinstance(part, SameConv2d):
        padding = (kernel - stride) // 2 if stride > 1 else kernel // 2
    return Layer(kernel, stride, padding)


@dataclass(frozen=True)
class Refinement:
    """From a coarse map to one that is `factor` times finer: the fine cell `first` lies on coarse cell 0.

    `first` may be half a cell. Raises PipelineError if it is another fraction, since no kernel fits then.
    """

    factor: int
    first: float

    def __post_init__(self):
        if self.factor < 1 or 2 * self.first != int(2 * self.first):
            raise PipelineError(f"no bilinear kernel leads {self.factor} times finer from cell {self.first:g}")

    @classmethod
    def between(cls, coarse: Coordinates, fine: Coordinates) -> "Refinement":
        return cls(coarse.stride // fine.stride, (coarse.offset - fine.offset) / fine.stride)

    @property
    def kernel(self) -> int:
        """k: even where coarse cells lie between two fine ones, odd where they lie on one."""
        return 2 * self.factor - (self.first == int(self.first))

    @property
    def crop(self) -> int:
        """Fine cell 0 is cell `crop` of what the transposed convolution makes.

        Where the release crops the fine map instead, it is by -`crop`.
        """
        return int((self.kernel - 1) / 2 - self.first)

    def reached(self, coarse: int, fine: int) -> tuple[int, int]:
        """The first of the m = `fine` cells within reach of one of n = `coarse` cells, and the end."""
        return max(0, -self.crop), max(0, min(fine, self.factor * (coarse - 1) + self.kernel - self.crop))

    def weights(self, coarse: int, first: int, end: int) -> np.ndarray:
        """How much of each of n = `coarse` cells the fine cells `first` .. `end` - 1 get: float64 [m x n].

        With these for rows and columns, a map between two products is what the transposed convolution makes, cropped.
        """
        places = (np.arange(first, end) - self.first) / self.factor
        return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(coarse)))


def bilinear_kernel(side: int) -> np.ndarray:
    """The bilinear kernel, float64 [k x k]: `upsample_filt` of surgery.py.

    NOTE: Caffe's own filler `bilinear` is another one where k is 2 or 3 more than a multiple of 4.
    """
    factor = (side + 1) // 2
    line = 1 - np.abs(np.arange(side) - (side - 1) / 2) / factor
    return np.outer(line, line)
