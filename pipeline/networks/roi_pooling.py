"""Max pooling of regions of a conv map to one size: Fast R-CNN's RoI pooling and SPP-net's spatial pyramid.

Both cut a region into bins along each side and take the largest cell of each bin. On the CPU:

1. Regions between the same columns share, row by row of the map, the maxima over their bins of columns.
2. The maxima over a region's rows of these are its bins. Rows come last because all bins of a row lie side by side in memory.

A maximum is exact: the number of threads changes no byte. Values are taken to be finite.
Compiled functions call none of another file: numba's cache would not notice that one changed.

Shape shorthand: N regions or windows; D channels, h x w cells of a map; n bins a side; G groups of regions between the same
columns. Bins are pairs (first cell, end cell) along one side, the end exclusive.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.boxes import to_inclusive

CELL_BITS = 16  # Four numbers of cells fit one int64
# Bins that lie a power of two apart fall out of the first-level cache while they are transposed: 2.5 times the whole time.
PADDING = 16
LEAST_CHANNELS = 128  # With fewer for each of two threads, neither is done sooner than one with all of them


def roi_pool(features: Tensor, rois: Tensor | np.ndarray, spatial_scale: float, bins: int) -> Tensor:
    """RoI max pooling (Girshick 2015, section 2.1): [D x h x w], [N x 4] -> [N x D x bins x bins], contiguous.

    `features` is one image's map in float32, bfloat16 or float16, which the result is in too; channels last in memory is fastest.
    `rois` are the release's: float32 (x1, y1, x2, y2) in pixels of the scaled image, 0-based, *inclusive* corners.
    `spatial_scale` is cells a pixel. Differentiable with respect to `features`: a bin's gradient goes to its largest cell, of
    equal ones to the first by rows.

    On the CPU equal to torchvision.ops.roi_pool to the bit, forwards and backwards; elsewhere forwards it is that, and gradients
    have the same bytes in every run, which torchvision's do not on a GPU. Corners round half away from zero (`roi_cells`), both
    count, and a reversed region is one cell wide. Bin i of `size` cells is floor(i * step) .. ceil((i + 1) * step), where step =
    size / bins is *float32*, as in the release: the last of 7 bins of 57 cells takes in a 58th. The bins are clipped to the map;
    an empty one is 0.

    Raises ValueError on a map of another dtype and on corners that `roi_cells` refuses.
    """
    if features.dtype not in (torch.float32, torch.bfloat16, torch.float16) or features.ndim != 3:
        raise ValueError(f"features are {features.dtype} {tuple(features.shape)}, expected float32 or 16-bit floats [D x h x w]")
    if features.device.type == "cpu":
        return _RoiPool.apply(features, roi_cells(rois, spatial_scale), bins)
    return by_torchvision(features, rois, spatial_scale, bins)


def roi_cells(rois: Tensor | np.ndarray, spatial_scale: float) -> np.ndarray:
    """The cells that the corners of `rois` [N x 4] round to, not clipped: int64 [N x 4]. Regions of the same cells pool the same.

    Raises ValueError on corners that are not finite or 32767 cells away.
    """
    scaled = np.asarray(rois, np.float32).reshape(-1, 4) * np.float32(spatial_scale)
    limit = 2 ** (CELL_BITS - 1) - 1
    if not (np.abs(scaled) < limit).all():
        raise ValueError(f"corners of regions are not finite or {limit} cells away")
    wide = scaled.astype(np.float64)  # In float32, 0.49999997 + 0.5 is 1
    return np.trunc(wide + np.copysign(0.5, wide)).astype(np.int64)


def distinct(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of `cells` (int [N x 4 or fewer], as of `roi_cells`) differ: the index of the first of each kind [M], and the
    kind of each row [N].

    For dropping duplicates before the network, as in the release: `rois[indices]` go in, `scores[kinds]` are those of all.
    NOTE: the release compares corners rounded half to even; by `roi_cells`, those go that pool the same.
    """
    codes = cells @ 2 ** np.arange(0, CELL_BITS * cells.shape[1], CELL_BITS)
    return np.unique(codes, return_index=True, return_inverse=True)[1:]


def map_windows(boxes: np.ndarray, height: int, width: int, stride: int = 16) -> np.ndarray:
    """The windows of a map of `height` x `width` cells from which `boxes` [N x 4] are pooled: int64 [N x 4].

    Boxes are in pixels of the scaled image, 0-based, x2 and y2 exclusive. Windows are (first column, first row, end column, end
    row) in cells, 0-based, ends exclusive; inside the map, a cell at least.

    He et al. 2014, appendix A: cell i is centred on pixel stride * i, and a box has the cells whose centres lie strictly inside:
    of its pixels x1 .. x2, inclusive, the cells floor(x1 / stride) + 1 .. ceil(x2 / stride) - 1. Where clipping to the map leaves
    none, along one side, it has the cell nearest to its middle (x1 + x2) / 2; of two as near, the second.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    (first, last), limit = np.split(to_inclusive(boxes), 2, axis=1), np.array([width, height]) - 1
    middle = np.clip(np.floor((first + last) / (2 * stride) + 0.5), 0, limit)
    first, last = np.maximum(np.floor(first / stride) + 1, 0), np.minimum(np.ceil(last / stride) - 1, limit)
    empty = first > last
    return np.concatenate([np.where(empty, middle, first), np.where(empty, middle, last) + 1], axis=1).astype(np.int64)


def pyramid_pool(features: np.ndarray | Tensor, windows: np.ndarray, levels: tuple[int, ...] = (1, 2, 3, 6)) -> np.ndarray:
    """Spatial pyramid pooling (He et al. 2014, section 2.2): [h x w x D], [N x 4] -> [N x D * sum of squared levels].

    `features` is one image's map in float32 or float16, which the result is in too. `windows` as of `map_windows`. Level n has
    n x n bins; bin i of w cells is floor(i w / n) .. ceil((i + 1) w / n), exactly. A row of the result has level after level as
    given, each [n x n x D]: rows, columns, channels.

    Raises ValueError on a map of another dtype, windows that are empty or reach out of the map, and repeated levels.
    """
    features, windows = np.asarray(features), np.asarray(windows, np.int64).reshape(-1, 4)
    if features.dtype not in (np.float32, np.float16) or features.ndim != 3:
        raise ValueError(f"features are {features.dtype} {features.shape}, expected float32 or float16 [h x w x D]")
    height, width, depth = features.shape
    first, end = windows[:, :2], windows[:, 2:]
    if not ((first >= 0) & (first < end) & (end <= [width, height])).all():
        raise ValueError(f"windows are empty or reach out of the map of {height} x {width} cells")
    if len(set(levels)) < len(levels) or min(levels) < 1:
        raise ValueError(f"levels are {levels}, expected different numbers from 1")
    starts = dict(zip(levels, np.cumsum([0, *(n * n for n in levels)]).tolist()))
    cells = _order_keys(features)
    pooled = np.empty((len(windows), sum(n * n for n in levels) * depth), cells.dtype)
    rest = sorted(levels, reverse=True)
    while rest:
        # Bins of a level that divides another are unions of the other's bins, so only the finest is pooled from the map.
        family = np.array([(n, starts[n]) for n in rest if rest[0] % n == 0])
        columns, rows = (_window_bins(windows[:, side], windows[:, side + 2], rest[0]) for side in (0, 1))
        _share_out(_pool_pyramid, cells, windows, columns, rows, family, pooled)
        rest = [n for n in rest if rest[0] % n]
    return _restore(pooled, cells).view(features.dtype)


class _RoiPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, corners, bins):
        cells = _order_keys(_channels_last(features))
        height, width, depth = cells.shape
        columns, rows = _roi_bins(corners[:, 0::2], bins, width), _roi_bins(corners[:, 1::2], bins, height)
        ctx.save_for_backward(features)
        ctx.bins = columns, rows
        pooled = np.empty((len(corners), depth, bins * bins), cells.dtype)
        _share_out(_pool_rois, cells, corners, columns, rows, pooled)
        return torch.from_numpy(_restore(pooled, cells)).view(features.dtype).view(len(corners), depth, bins, bins)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_pooled):
        (features,) = ctx.saved_tensors
        cells = _order_keys(_channels_last(features))
        # Channels last, as the cells: reading the gradients one by one took longer than finding where they belong.
        grad_pooled = grad_pooled.float().flatten(2).transpose(1, 2).contiguous().numpy()
        grad_cells = np.zeros(cells.shape, np.float32)
        # Regions overlap, so each thread has channels of its own.
        depth = cells.shape[2]
        parts = max(1, min(torch.get_num_threads(), depth // LEAST_CHANNELS))
        cuts = np.linspace(0, depth, parts + 1).astype(np.int64)
        _in_threads(lambda first, end: _scatter(cells, ctx.bins, (first, end), grad_pooled, grad_cells), cuts)
        return torch.from_numpy(grad_cells).permute(2, 0, 1).to(features.dtype), None, None


def by_torchvision(features: Tensor, rois: Tensor | np.ndarray, spatial_scale: float, bins: int) -> Tensor:
    """`roi_pool` on other devices than the CPU: torchvision says where the largest cells are."""
    import torchvision  # noqa: F401  (has the operator)

    # In float32, because torchvision takes corners in the dtype of the map. The first column is the number of the image.
    cells = features.float()
    rois = torch.nn.functional.pad(torch.as_tensor(rois, dtype=torch.float32, device=cells.device).reshape(-1, 4), (1, 0))
    places = torch.ops.torchvision.roi_pool(cells.detach()[None], rois, spatial_scale, bins, bins)[1]  # -1 for an empty bin
    # Gradients of an indexing are sorted before they are added. NOTE: torchvision's kernel adds them as its threads come.
    pooled = cells.flatten(1)[torch.arange(len(cells), device=cells.device)[:, None, None], places.clamp(min=0).long()]
    return torch.where(places < 0, 0, pooled).to(features.dtype)


def _channels_last(features: Tensor) -> np.ndarray:
    """[D x h x w] -> [h x w x D]; 16-bit floats as their bits."""
    features = features.detach().permute(1, 2, 0)
    return (features if features.dtype == torch.float32 else features.view(torch.int16)).numpy()


def _order_keys(cells: np.ndarray) -> np.ndarray:
    """float32 as it is; 16-bit floats as integers in the same order, which processors compare. Its own inverse."""
    cells = np.require(cells, requirements="CW")  # numba would compile anew for other kinds of arrays
    if cells.dtype == np.float32:
        return cells
    bits = cells.view(np.int16)
    # The bits of negative floats have the reverse order.
    return bits ^ (bits >> 15 & 0x7FFF) if bits.min(initial=0) < 0 else bits


def _restore(pooled: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """What was pooled from the order keys `cells` as floats, 16-bit ones as their bits."""
    return _order_keys(pooled) if cells.min(initial=0) < 0 else pooled


def _roi_bins(corners: np.ndarray, bins: int, limit: int) -> np.ndarray:
    """Bins [N x n x 2] along a side of `limit` cells, of regions between `corners` [N x 2], inclusive; see `roi_pool`."""
    first = corners[:, :1]
    step = np.maximum(corners[:, 1:] - first + 1, 1).astype(np.float32) / np.float32(bins)
    edges = np.arange(bins + 1, dtype=np.float32) * step
    edges = np.stack([np.floor(edges[:, :-1]), np.ceil(edges[:, 1:])], axis=2).astype(np.int64)
    return np.clip(edges + first[:, :, None], 0, limit)


def _window_bins(first: np.ndarray, end: np.ndarray, bins: int) -> np.ndarray:
    """Bins [N x n x 2] along a side of windows from `first` to `end` [N]; see `pyramid_pool`."""
    edges = np.arange(bins + 1) * (end - first)[:, None]
    return np.stack([edges[:, :-1] // bins, -(-edges[:, 1:] // bins)], axis=2) + first[:, None, None]


def _share_out(pool: Callable, cells: np.ndarray, corners: np.ndarray, columns: np.ndarray, rows: np.ndarray, *rest) -> None:
    """Calls pool(cells, groups, *rest) for parts of the regions, `groups` being (order, bounds, columns, rows).

    Regions order[bounds[g] : bounds[g + 1]] lie between columns[g], of [G x n x 2]; `rows` [N x n x 2] are of each region.
    """
    firsts, group = distinct(corners[:, 0::2])
    order, bounds = np.argsort(group, kind="stable"), np.searchsorted(np.sort(group), np.arange(len(firsts) + 1))
    columns = columns[firsts]
    parts = 4 * torch.get_num_threads()  # More than threads, as some regions take longer
    cuts = np.searchsorted(bounds, np.linspace(0, len(order), parts + 1))

    def pool_groups(first: int, end: int) -> None:
        pool(cells, (order, bounds[first : end + 1], columns[first:end], rows), *rest)

    _in_threads(pool_groups, cuts)


def _in_threads(function: Callable, cuts: np.ndarray) -> None:
    """Calls function(cut, next cut) for all of `cuts`, in as many threads as torch has; a single time, in this one."""
    if len(cuts) == 2:
        function(*cuts)
        return
    list(_threads(torch.get_num_threads()).map(function, cuts[:-1], cuts[1:]))


# Kept, as starting threads takes longer than pooling a few regions. A fork has none of its parent's.
_threads = lru_cache(1)(ThreadPoolExecutor)
os.register_at_fork(after_in_child=_threads.cache_clear)


@njit(nogil=True, cache=True)
def _take_largest(target, cells, first, end):
    """`target` [L] becomes the largest of rows `first` .. `end` - 1 of `cells` [... x L], or 0 when there is none."""
    if first >= end:
        target[:] = 0
        return
    line = cells[first]
    for j in range(len(target)):  # Assigning a whole row doubles the time of everything
        target[j] = line[j]
    for i in range(first + 1, end):
        line = cells[i]
        for j in range(len(target)):
            target[j] = line[j] if line[j] > target[j] else target[j]


@njit(nogil=True, cache=True)
def _pool_columns(maxima, cells, members, columns, rows):
    """Fills `maxima` [h x n x D or more] with those over `columns` [n x 2], in the rows that the regions `members` need."""
    height, _, depth = cells.shape
    top, bottom = height, 0
    for region in members:
        top, bottom = min(top, rows[region, 0, 0]), max(bottom, rows[region, -1, 1])
    for y in range(top, bottom):
        for i in range(len(columns)):
            _take_largest(maxima[y, i, :depth], cells[y], columns[i, 0], columns[i, 1])


@njit(nogil=True, cache=True)
def _pool_rois(cells, groups, pooled):
    """Pools `cells` [h x w x D] into `pooled` [N x D x nn]; see _share_out."""
    order, bounds, columns, rows = groups
    height, _, depth = cells.shape
    n = rows.shape[1]
    maxima = np.zeros((height, n, depth + PADDING), cells.dtype)
    bins = np.empty((n, n * (depth + PADDING)), cells.dtype)
    side_by_side, one_by_one = maxima.reshape(height, -1), bins.reshape(n * n, -1)
    for group in range(len(columns)):
        members = order[bounds[group] : bounds[group + 1]]
        _pool_columns(maxima, cells, members, columns[group], rows)
        for region in members:
            for i in range(n):
                _take_largest(bins[i], side_by_side, rows[region, i, 0], rows[region, i, 1])
            for channel in range(depth):
                for i in range(n * n):
                    pooled[region, channel, i] = one_by_one[i, channel]


@njit(nogil=True, cache=True)
def _pool_pyramid(cells, groups, family, pooled):
    """Pools `cells` [h x w x D] into the levels `family`, rows (n, first bin), in `pooled` [N x bins D]; see _share_out."""
    order, bounds, columns, rows = groups
    height, _, depth = cells.shape
    n, start = family[0]
    maxima, strip = np.empty((height, n, depth), cells.dtype), np.empty((n, depth), cells.dtype)
    side_by_side, whole_strip = maxima.reshape(height, -1), strip.reshape(-1)
    for group in range(len(columns)):
        members = order[bounds[group] : bounds[group + 1]]
        _pool_columns(maxima, cells, members, columns[group], rows)
        for region in members:
            bins = pooled[region].reshape(-1, depth)
            finest = bins[start : start + n * n].reshape(n, -1)
            for i in range(n):
                _take_largest(finest[i], side_by_side, rows[region, i, 0], rows[region, i, 1])
            for coarse, first in family[1:]:
                share = n // coarse
                for i in range(coarse * coarse):
                    y, x = i // coarse, i % coarse
                    if x == 0:
                        _take_largest(whole_strip, finest, y * share, (y + 1) * share)
                    _take_largest(bins[first + i], strip, x * share, (x + 1) * share)


@njit(nogil=True, cache=True)
def _scatter(cells, bins, channels, grad_pooled, grad_cells):
    """Adds the gradients of bins [N x nn x D] to those of their largest cells [h x w x D], in some channels.

    `bins` are those of columns and of rows; `channels` are the first and the end.
    """
    (columns, rows), (first, end) = bins, channels
    width, n = np.int32(cells.shape[1]), rows.shape[1]
    # As wide as the cells' float32: the compiler works on eight of both at once.
    largest, place = np.empty(end - first, cells.dtype), np.empty(end - first, np.int32)
    grad_cells = grad_cells.reshape(-1, cells.shape[2])
    for region in range(len(rows)):
        for i in range(n * n):
            (top, bottom), (left, right) = rows[region, i // n], columns[region, i % n]
            if top >= bottom or left >= right:
                continue
            for j in range(end - first):
                largest[j], place[j] = cells[top, left, first + j], np.int32(top) * width + np.int32(left)
            for y in range(top, bottom):
                for x in range(left, right):
                    line, here = cells[y, x, first:end], np.int32(y) * width + np.int32(x)
                    for j in range(len(line)):
                        # Locals: for all that the compiler knows, writing `place` changes the others, to be read again.
                        value, best = line[j], largest[j]
                        is_larger = value > best
                        place[j] = here if is_larger else place[j]
                        largest[j] = value if is_larger else best
            for j in range(len(place)):
                grad_cells[place[j], first + j] += grad_pooled[region, i, first + j]
