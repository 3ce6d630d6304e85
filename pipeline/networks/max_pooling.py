"""Max pooling of regions of a conv map to one size on the CPU, as RoI pooling and the spatial pyramid share it.

Both cut a region into bins along each side and take the largest cell of each bin:

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

CELL_BITS = 16  # Four numbers of cells fit one int64
# Bins that lie a power of two apart fall out of the first-level cache while they are transposed: 2.5 times the whole time.
PADDING = 16


def distinct(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of `cells` (int [N x 4 or fewer], as of `roi_cells`) differ: the index of the first of each kind [M], and the
    kind of each row [N].

    For dropping duplicates before the network, as in the release: `rois[indices]` go in, `scores[kinds]` are those of all.
    NOTE: the release compares corners rounded half to even; by `roi_cells`, those go that pool the same.
    """
    codes = cells @ 2 ** np.arange(0, CELL_BITS * cells.shape[1], CELL_BITS)
    return np.unique(codes, return_index=True, return_inverse=True)[1:]


def order_keys(cells: np.ndarray) -> np.ndarray:
    """float32 as it is; 16-bit floats as integers in the same order, which processors compare. Its own inverse."""
    cells = np.require(cells, requirements=["C", "W"])  # numba would compile anew for other kinds of arrays
    if cells.dtype == np.float32:
        return cells
    bits = cells.view(np.int16)
    # The bits of negative floats have the reverse order.
    return bits ^ (bits >> 15 & 0x7FFF) if bits.min(initial=0) < 0 else bits


def restore(pooled: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """What was pooled from the order keys `cells` as floats, 16-bit ones as their bits."""
    return order_keys(pooled) if cells.min(initial=0) < 0 else pooled


def share_out(pool: Callable, cells: np.ndarray, corners: np.ndarray, columns: np.ndarray, rows: np.ndarray, *rest) -> None:
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

    in_threads(pool_groups, cuts)


def in_threads(function: Callable, cuts: np.ndarray) -> None:
    """Calls function(cut, next cut) for all of `cuts`, in as many threads as torch has; a single time, in this one."""
    if len(cuts) == 2:
        function(*cuts)
        return
    list(_threads(torch.get_num_threads()).map(function, cuts[:-1], cuts[1:]))


# Kept, because starting threads takes longer than pooling a few regions. A fork does not inherit its parent's threads.
_threads = lru_cache(1)(ThreadPoolExecutor)
os.register_at_fork(after_in_child=_threads.cache_clear)


@njit(nogil=True, cache=True)
def _take_largest(target, cells, first, end):
    """`target` [L] becomes the largest of rows `first` .. `end` - 1 of `cells` [... x L], or 0 without rows."""
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
def pool_rois(cells, groups, pooled):
    """Pools `cells` [h x w x D] into `pooled` [N x D x nn]; see share_out."""
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
def pool_pyramid(cells, groups, family, pooled):
    """Pools `cells` [h x w x D] into the levels `family`, rows (n, first bin), in `pooled` [N x bins D]; see share_out."""
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
def scatter(cells, bins, channels, grad_pooled, grad_cells):
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
