"""Position-sensitive RoI pooling (Dai et al. 2016, section 2): each bin of a region is the mean over a map of its own.

1. A region's corners are rounded to pixels and scaled to cells; the bins are equal parts between them (`position_bins`).
2. Bin (i, j) of class c is the mean over its rectangle of cells in map (c n + i) n + j.

On the CPU the cells are added up one by one, elsewhere with summed-area tables (`by_tables`).

NOTE: `torchvision.ops.ps_roi_pool` is another function. It scales before it rounds, ends a region without the one pixel that is
added here, makes it one cell wide at least, and never reads the last row and column of a map. Half of the bins and more differ.

Shape shorthand: N regions; C classes, or C numbers of any kind; h x w cells of a map; n bins a side.
"""

from collections.abc import Callable

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.networks.max_pooling import in_threads

LEAST_SIDE = 0.1  # cells; the side of a region whose corners are reversed, in psroi_pooling_layer.cu of daijifeng001/caffe-rfcn


def ps_roi_pool(maps: Tensor, rois: np.ndarray, spatial_scale: float, bins: int) -> Tensor:
    """Means over the bins of regions: [C n n x h x w], [N x 4] -> [N x C x n x n].

    The layer PSROIPooling of daijifeng001/caffe-rfcn: an empty bin is 0. `rois` are the release's, as `roi_pool` takes them:
    (x1, y1, x2, y2) in pixels of the scaled image, 0-based, inclusive. `spatial_scale` is cells a pixel. Differentiable with
    respect to `maps`, with the same bytes in every run and for any number of threads. 16-bit floats become float32.

    Raises ValueError where the number of maps is no multiple of n n, and for corners that are not finite.
    """
    if maps.ndim != 3 or len(maps) % bins**2:
        raise ValueError(f"maps are {list(maps.shape)}, expected a multiple of {bins} x {bins} maps [h x w]")
    corners = rounded_corners(rois)
    columns = position_bins(corners[:, 0::2], spatial_scale, bins, maps.shape[2])
    rows = position_bins(corners[:, 1::2], spatial_scale, bins, maps.shape[1])
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    pool = _PositionPool.apply if maps.device.type == "cpu" else by_tables
    return pool(maps, rows, columns)


def rounded_corners(rois: np.ndarray) -> np.ndarray:
    """Corners of `rois` [N x 4] rounded to pixels, half away from zero: float32. Regions with the same ones pool the same."""
    wide = np.asarray(rois, np.float64).reshape(-1, 4)
    if not np.isfinite(wide).all():
        raise ValueError("corners of regions are not finite")
    return np.trunc(wide + np.copysign(0.5, wide)).astype(np.float32)


def position_bins(corners: np.ndarray, spatial_scale: float, bins: int, limit: int) -> np.ndarray:
    """The first cell and the end of each bin along a side of `limit` cells: int64 [N x n x 2].

    `corners` [N x 2] are first and last pixels, rounded. An end that is not behind its first cell makes the bin empty. As in the
    release all numbers are float32.
    """
    scale = np.float32(spatial_scale)
    start, end = corners[:, :1] * scale, (corners[:, 1:] + 1) * scale
    step = np.maximum(end - start, np.float32(LEAST_SIDE)) / np.float32(bins)
    edges = np.arange(bins + 1, dtype=np.float32) * step
    first, last = np.floor(edges[:, :-1] + start), np.ceil(edges[:, 1:] + start)
    return np.clip(np.stack([first, last], axis=2), 0, limit).astype(np.int64)


class _PositionPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, maps, rows, columns):
        bins = rows.shape[1]
        cells = maps.detach().unflatten(0, (-1, bins**2)).permute(1, 2, 3, 0).contiguous().numpy()
        pooled = np.zeros((len(rows), bins, bins, cells.shape[3]), cells.dtype)
        _share_out(_average, cells, rows, columns, pooled)
        ctx.bins, ctx.shape = (rows, columns), cells.shape
        return torch.from_numpy(pooled).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_pooled):
        grad_pooled = grad_pooled.permute(0, 2, 3, 1).contiguous().numpy()
        grad_cells = np.zeros(ctx.shape, grad_pooled.dtype)
        rows, columns = ctx.bins
        _share_out(_spread, grad_cells, rows, columns, grad_pooled)
        return torch.from_numpy(grad_cells).permute(3, 0, 1, 2).flatten(0, 1), None, None


def _share_out(function: Callable, cells: np.ndarray, rows: np.ndarray, columns: np.ndarray, pooled: np.ndarray) -> None:
    """Calls `function` for all bins, in threads. Each bin has maps of its own, so that no two threads write to one place."""
    threads = min(torch.get_num_threads(), len(cells))
    cuts = np.linspace(0, len(cells), threads + 1).astype(np.int64)
    in_threads(lambda first, end: function(cells, (rows, columns), (first, end), pooled), cuts)


@njit(nogil=True, cache=True)
def _average(cells, edges, numbers, pooled):
    """`pooled` [N x n x n x C], zeros, becomes the means over the bins of `numbers` in `cells` [n n x h x w x C]."""
    rows, columns = edges
    bins, depth = rows.shape[1], cells.shape[3]
    for number in range(*numbers):
        i, j = number // bins, number % bins
        for region in range(len(rows)):
            top, bottom = rows[region, i]
            left, right = columns[region, j]
            area = max(bottom - top, 0) * max(right - left, 0)
            target = pooled[region, i, j]
            for y in range(top, bottom):
                for x in range(left, right):
                    line = cells[number, y, x]
                    for c in range(depth):
                        target[c] += line[c]
            for c in range(depth if area else 0):
                target[c] /= area


@njit(nogil=True, cache=True)
def _spread(grad_cells, edges, numbers, grad_pooled):
    """The transpose of `_average`: each bin's gradient, divided by its area, is added to its cells."""
    rows, columns = edges
    bins, depth = rows.shape[1], grad_cells.shape[3]
    share = np.empty(depth, grad_cells.dtype)
    for number in range(*numbers):
        i, j = number // bins, number % bins
        for region in range(len(rows)):
            top, bottom = rows[region, i]
            left, right = columns[region, j]
            area = max(bottom - top, 0) * max(right - left, 0)
            for c in range(depth if area else 0):
                share[c] = grad_pooled[region, i, j, c] / area
            for y in range(top, bottom):
                for x in range(left, right):
                    line = grad_cells[number, y, x]
                    for c in range(depth):
                        line[c] += share[c]


def by_tables(maps: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """Means over bins [N x C x n x n] on other devices than the CPU; `rows`, `columns` [N x n x 2] are their edges."""
    bins, (_, height, width) = rows.shape[1], maps.shape
    # [n n (h+1) (w+1) x C]: the sum over the rows above and the columns left of a place. In float64, because a small sum is the
    # difference of large ones. By products of matrices: NOTE: torch's cumsum may differ from run to run on a GPU.
    above, left = (torch.ones(side + 1, side, dtype=torch.float64, device=maps.device).tril(-1) for side in (height, width))
    sums = above @ maps.double() @ left.T
    tables = sums.unflatten(0, (-1, bins**2)).permute(1, 2, 3, 0).flatten(0, 2)
    table = np.arange(bins**2).reshape(bins, bins, 1, 1) * (height + 1) * (width + 1)
    places = table + (rows * (width + 1))[:, :, None, :, None] + columns[:, None, :, None, :]  # [N x n x n x 2 x 2]
    areas = np.maximum(np.diff(rows), 0)[:, :, None] * np.maximum(np.diff(columns), 0)[:, None]  # [N x n x n x 1]
    shares = np.where(areas > 0, 1.0, 0.0) / np.maximum(areas, 1)
    signed = shares[..., None] * np.array([[1.0, -1.0], [-1.0, 1.0]])
    # Gradients of an indexing are sorted before they are added, so that a GPU makes the same bytes in every run.
    parts = tables[torch.from_numpy(places).to(maps.device)] * torch.from_numpy(signed).to(maps.device)[..., None]
    return parts.sum((3, 4)).permute(0, 3, 1, 2).to(maps.dtype)
