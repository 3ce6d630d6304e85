"""Spatial pyramid pooling (He et al. 2014, section 2.2): windows of a conv map, each to bins of several sizes.

Shape shorthand: N windows; D channels, h x w cells of a map; n bins a side of a level.
"""

import numpy as np
from torch import Tensor

from pipeline.boxes import to_inclusive
from pipeline.networks.max_pooling import order_keys, pool_pyramid, restore, share_out


def map_windows(boxes: np.ndarray, height: int, width: int, stride: int = 16) -> np.ndarray:
    """The windows of a map of `height` x `width` cells from which `boxes` [N x 4] are pooled: int64 [N x 4].

    Boxes are in pixels of the scaled image, 0-based, x2 and y2 exclusive. Windows are (first column, first row, end column, end
    row) in cells, 0-based, ends exclusive; inside the map, at least one cell.

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
    cells = order_keys(features)
    pooled = np.empty((len(windows), sum(n * n for n in levels) * depth), cells.dtype)
    rest = sorted(levels, reverse=True)
    while rest:
        # Bins of a level that divides another are unions of the other's bins, so only the finest is pooled from the map.
        family = np.array([(n, starts[n]) for n in rest if rest[0] % n == 0])
        columns, rows = (_window_bins(windows[:, side], windows[:, side + 2], rest[0]) for side in (0, 1))
        share_out(pool_pyramid, cells, windows, columns, rows, family, pooled)
        rest = [n for n in rest if rest[0] % n]
    return restore(pooled, cells).view(features.dtype)


def _window_bins(first: np.ndarray, end: np.ndarray, bins: int) -> np.ndarray:
    """Bins [N x n x 2] along a side of windows from `first` to `end` [N]; see `pyramid_pool`."""
    edges = np.arange(bins + 1) * (end - first)[:, None]
    return np.stack([edges[:, :-1] // bins, -(-edges[:, 1:] // bins)], axis=2) + first[:, None, None]
