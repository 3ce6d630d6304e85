"""Label maps of single images of any size, in bounded memory.

An image of more pixels than go through the network at once is cut into tiles. A tile is seen with a margin as wide as a pixel's
scores can depend on, and begins at a multiple of the network's stride. So its labels are those of the whole image, up to
rounding. NOTE: unpooling normalises by the statistics of what it sees, and those of a tile are not quite the image's.

Shape shorthand: H, W height and width of the image; K classes.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.networks.compute import mixed_precision
from pipeline.segmentation.network import SegmentationNetwork
from pipeline.segmentation.sampling import network_input

MEGAPIXELS = 4.0  # at once: scores of 21 classes take 340 megabytes then, and the first maps of VGG-16 2 gigabytes


class ImageSegmenter:
    """A trained network for single images; `megapixels` go through it at once, margins included."""

    def __init__(self, model: SegmentationNetwork, device: torch.device, precision: str, megapixels: float = MEGAPIXELS):
        self.model = model.eval().to(device).to(memory_format=torch.channels_last)
        self.device, self.precision, self.megapixels = device, precision, megapixels
        distance, self.stride = model.dependence
        # Padding that is longer on one side is within a stride, and so are odd kernels.
        self.margin = -(-(distance + self.stride) // self.stride) * self.stride

    def segment(self, pixels: np.ndarray) -> np.ndarray:
        """The class of each pixel, uint8 [H x W], of an image, uint8 RGB [H x W x 3].

        Raises PipelineError if the image is too large and even the smallest tile is, naming the size that it needs.
        """
        height, width = pixels.shape[:2]
        labels = np.empty((height, width), np.uint8)
        for rows, columns in self.tiles(height, width):
            (top, bottom), (left, right) = self._seen(rows, height), self._seen(columns, width)
            scores = self.scores(pixels[top:bottom, left:right])
            part = scores[:, rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]
            labels[slice(*rows), slice(*columns)] = part.argmax(0).cpu().numpy()
        return labels

    def scores(self, pixels: np.ndarray) -> Tensor:
        """The scores [K x H x W] before the softmax of a whole image, uint8 RGB [H x W x 3], untiled."""
        return self.scores_of(network_input(pixels, self.model.backbone.view))[0]

    def scores_of(self, values: Tensor) -> Tensor:
        """The scores [1 x K x H x W] before the softmax of a network's input [1 x 3 x H x W]."""
        with torch.inference_mode(), mixed_precision(self.device, self.precision):
            return self.model(values.to(self.device))

    def tiles(self, height: int, width: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """The rows and columns, first and end of each, of the tiles that make up an image; one tile where it is small enough."""
        limit = self.megapixels * 1e6
        if height * width <= limit:
            yield (0, height), (0, width)
            return
        rows, columns = self._tile_size(height, width)
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                yield (top, min(height, top + rows)), (left, min(width, left + columns))

    def _tile_size(self, height: int, width: int) -> tuple[int, int]:
        """The sides of a tile without its margins: multiples of the stride, or the image's own side where that is small."""
        sides = [min(side, self.stride + 2 * self.margin) for side in (height, width)]
        least, limit = sides[0] * sides[1], self.megapixels * 1e6
        if least > limit:
            raise PipelineError(
                f"an image of {width} x {height} pixels: {self.model.name} needs at least {least / 1e6:.3g} megapixels at a "
                f"time, since scores depend on pixels up to {self.margin} away, and the limit is {self.megapixels:g}; raise the "
                "limit, or make the image smaller"
            )
        shorter, longer = sorted((height, width))
        # As square as the image allows; the longer side takes what the shorter one leaves.
        first = self._fitting(shorter, limit**0.5)
        second = self._fitting(longer, limit / min(shorter, first + 2 * self.margin))
        return (first, second) if height <= width else (second, first)

    def _fitting(self, side: int, room: float) -> int:
        """The longest side of a tile, without margins, that has `room` with them."""
        if side <= room:
            return side
        return max(self.stride, int((room - 2 * self.margin) // self.stride) * self.stride)

    def _seen(self, ends: tuple[int, int], side: int) -> tuple[int, int]:
        """Where the pixels begin and end that a tile's scores depend on."""
        return max(0, ends[0] - self.margin), min(side, ends[1] + self.margin)
