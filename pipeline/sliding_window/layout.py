"""Where windows lie: their side and step, and the frame around an image that lets them reach beyond its edge.

Shape shorthand: M windows.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from pipeline.images.resampling import resample
from pipeline.networks.backbones import Normalisation, make_backbone
from pipeline.networks.whole_images import Scaling
from pipeline.networks.without_weights import without_weights
from pipeline.sliding_window.offsets import POOL
from pipeline.sliding_window.trunk import window_trunk

LARGEST_SIDE = 2048  # of a window, in the search for it
# As `get_image_blob` of rbgirshick/fast-rcnn: the longer side is at most 1000 pixels where the shorter is 600.
LONGEST = 5 / 3


@dataclass(frozen=True)
class WindowLayout:
    """Windows of `side` x `side` pixels, one each `stride` pixels.

    An image gets a `frame` of zeros, a quarter of a window wide: an object at the edge then lies well inside some window.
    """

    side: int
    stride: int

    @property
    def frame(self) -> int:
        return self.side // 4

    def positions(self, length: int) -> int:
        """How many windows cover `length` pixels and the frame. A multiple of 3, so that all offsets make maps of one size.

        (In OverFeat's words: the size of the map is 2 modulo 3.)
        """
        least = max(0, -(-(length + 2 * self.frame - self.side) // self.stride)) + 1
        return -(-least // POOL) * POOL

    def length(self, positions: int) -> int:
        """The pixels that `positions` windows in a row cover."""
        return self.side + self.stride * (positions - 1)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of windows on an image of `size` (height, width)."""
        return self.positions(size[0]), self.positions(size[1])

    def windows(self, rows: int, columns: int) -> np.ndarray:
        """The windows float32 [M x 4], row by row, from the corner of the framed image."""
        y, x = np.mgrid[:rows, :columns].reshape(2, -1) * self.stride
        return np.stack([x, y, x + self.side, y + self.side], axis=1).astype(np.float32)

    def image_boxes(self, boxes: np.ndarray, scaling: Scaling) -> np.ndarray:
        """Boxes [M x 4] of the framed, scaled image, in pixels of the image itself."""
        return (boxes - self.frame) / np.array([*scaling.factors, *scaling.factors], np.float32)


def scalings(height: int, width: int, layout: WindowLayout, scales: tuple[float, ...]) -> list[Scaling]:
    """How an image of `height` x `width` pixels is scaled: its shorter side becomes each of `scales` times the window's side."""
    shorter = [max(1, round(scale * layout.side)) for scale in scales]
    return [Scaling.of(height, width, side, round(side * LONGEST)) for side in shorter]


def framed_input(
    pixels: np.ndarray, scaling: Scaling, layout: WindowLayout, norm: Normalisation, device: torch.device
) -> Tensor:
    """The network's input float32 [1 x 3 x H x W]: `pixels` (uint8 RGB [height x width x 3]) scaled and framed with 0."""
    (height, width), (rows, columns) = scaling.size, layout.grid(scaling.size)
    values = np.empty((1, layout.length(rows), layout.length(columns), 3), np.float32)
    place = np.array([[layout.frame, layout.frame]])
    geometry = np.array([[0, 0, pixels.shape[1], pixels.shape[0]]]), place, np.array([[width, height]])
    resample(pixels, geometry, np.array([False]), values, mean=norm.mean, std=norm.std)
    return torch.from_numpy(values).to(device).permute(0, 3, 1, 2)


@cache
def layout_of(backbone: str, cells: int) -> WindowLayout:
    """The layout of windows whose map is pooled to `cells` x `cells`, for the trunk of `backbone`.

    The side is the smallest that gives the trunk's map its 3 x `cells` cells; the stride is what one cell more takes.
    """
    with without_weights():
        trunk = window_trunk(make_backbone(backbone))

    def map_side(side: int) -> int:
        try:
            return trunk(torch.empty((1, 3, side, side), device="meta")).shape[-1]
        except RuntimeError:  # smaller than a kernel
            return 0

    def smallest(wanted: int) -> int:
        low, high = 1, LARGEST_SIDE
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if map_side(middle) >= wanted else (middle + 1, high)
        return low

    side = smallest(POOL * cells)
    return WindowLayout(side, smallest(POOL * cells + 1) - side)
