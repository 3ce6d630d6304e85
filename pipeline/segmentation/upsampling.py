"""Upsampling inside a network, the lecture's four ways: nearest, bed of nails, max unpooling, transposed convolution.

nearest        each value is repeated factor x factor times
bed of nails   each value is at the upper left of its factor x factor cells, with zeros elsewhere
max unpooling  each value goes to where its maximum was, with zeros elsewhere (Zeiler et al. 2011; DeconvNet; SegNet)
transposed     each value times a kernel is added where the kernel lies

Shape shorthand: N images, C channels, h x w cells before and H x W after.
"""

import contextlib

import torch
from torch import Tensor, nn

from pipeline.segmentation.geometry import Refinement, bilinear_kernel

Size = tuple[int, int]


def without_autocast(values: Tensor) -> contextlib.AbstractContextManager:
    """Within it autocast leaves `values` in their precision. On the device meta there is no autocast."""
    return contextlib.nullcontext() if values.is_meta else torch.autocast(values.device.type, enabled=False)


def nearest(values: Tensor, factor: int, size: Size | None = None) -> Tensor:
    """Repeats each value factor x factor times; cut to `size` (H, W), or filled up with the last row and column."""
    height, width = size or tuple(factor * side for side in values.shape[2:])
    rows, columns = (
        (torch.arange(cells, device=values.device) // factor).clamp(max=last - 1)
        for cells, last in zip((height, width), values.shape[2:])
    )
    return values[:, :, rows[:, None], columns]


def bed_of_nails(values: Tensor, factor: int, size: Size | None = None) -> Tensor:
    """Each value at the upper left of its factor x factor cells, zeros elsewhere; cut to `size`, or filled up with zeros."""
    height, width = size or tuple(factor * side for side in values.shape[2:])
    kept = values[:, :, : -(-height // factor), : -(-width // factor)]
    spread = kept.new_zeros(*kept.shape[:2], height, width)
    spread[:, :, : factor * kept.shape[2] : factor, : factor * kept.shape[3] : factor] = kept
    return spread


def max_pool(values: Tensor, kernel: int, stride: int, padding: int = 0) -> tuple[Tensor, Tensor]:
    """Max pooling by Caffe's ceil rule, and where each maximum was: row * W + column within its channel.

    An odd last row is pooled alone. Of equal values the first in row order counts.
    """
    return nn.functional.max_pool2d(values, kernel, stride, padding, ceil_mode=True, return_indices=True)


def unpool(values: Tensor, indices: Tensor, size: Size, overlaps: bool = True) -> Tensor:
    """Puts `values` [N x C x h x w] to the places `indices` of `max_pool`, zeros elsewhere: [N x C x H x W].

    Where windows overlap, several values may have one place. The last in row order is put there, as in DeconvNet's release; they
    are not summed. Without `overlaps` no place may come twice, which is quicker.
    """
    flat, places = values.flatten(2), indices.flatten(2)
    empty = flat.new_zeros(*flat.shape[:2], size[0] * size[1])
    if not overlaps:
        return empty.scatter(2, places, flat).unflatten(2, size)
    # torch leaves open which of several values `scatter` keeps. So the last is looked up first.
    numbers = torch.arange(flat.shape[2], device=values.device).expand_as(places)
    last = torch.full(empty.shape, -1, device=values.device).scatter_reduce(2, places, numbers, "amax")
    return torch.where(last >= 0, flat.gather(2, last.clamp(min=0)), empty).unflatten(2, size)


class Upsampling(nn.Module):
    """A transposed convolution with one kernel a channel and no bias, bilinear at the start, cropped to the finer map's cells.

    Without `learned` the kernels stay as they are, as in the release. Then two products with small matrices give the same, much
    quicker, and the cells that the release crops are never made.
    """

    def __init__(self, refinement: Refinement, channels: int, learned: bool):
        super().__init__()
        self.refinement, self.learned = refinement, learned
        if learned:
            kernel = torch.from_numpy(bilinear_kernel(refinement.kernel)).float()
            self.weight = nn.Parameter(kernel.repeat(channels, 1, 1, 1))

    def reached(self, cells: Size, finer: Size) -> tuple[Size, Size]:
        """Which rows and columns of a `finer` map a map of `cells` reaches: the first and the end of each."""
        rows, columns = (self.refinement.reached(coarse, fine) for coarse, fine in zip(cells, finer))
        return rows, columns

    def forward(self, values: Tensor, rows: Size, columns: Size) -> Tensor:
        """The cells `rows` x `columns` (first and end of each) of the finer map [N x C x H x W], in the precision of `values`.

        Not in that of autocast: upsampled scores are compared.
        """
        with without_autocast(values):
            return self._upsampled(values, rows, columns)

    def _upsampled(self, values: Tensor, rows: Size, columns: Size) -> Tensor:
        if self.learned:
            kernel = self.weight.to(values.dtype)
            spread = nn.functional.conv_transpose2d(values, kernel, stride=self.refinement.factor, groups=len(kernel))
            crop = self.refinement.crop
            return spread[:, :, rows[0] + crop : rows[1] + crop, columns[0] + crop : columns[1] + crop]
        down, across = (
            self._matrix(cells, ends, values) for cells, ends in zip(values.shape[2:], (rows, columns), strict=True)
        )
        return down @ (values @ across.T)

    def _matrix(self, cells: int, ends: Size, like: Tensor) -> Tensor:
        weights = self.refinement.weights(cells, *ends)
        return torch.from_numpy(weights).to(like.device, like.dtype)
