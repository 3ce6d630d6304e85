"""Coordinates of poses (Toshev & Szegedy 2014, sections 3.1 and 3.2).

A pose y is k joints, (x, y) each. In a window b of centre c, width w and height h a joint is N(y; b) = (y - c) / (w, h).

Shape shorthand: N poses, k joints; windows are (x1, y1, x2, y2) in pixels, exclusive.
"""

import numpy as np


def to_window(joints: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """N(y; b): joints [N x ... x 2] in pixels, as parts of `windows` [N x ... x 4]. Inverse of `from_window`."""
    return (joints - _centres(windows)) / _sides(windows)


def from_window(parts: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """The joints [N x ... x 2] in pixels of `parts` of `windows` [N x ... x 4]. Inverse of `to_window`."""
    return parts * _sides(windows) + _centres(windows)


def mirrored_parts(parts: np.ndarray, order: np.ndarray) -> np.ndarray:
    """N(y; b) [... x k x 2] of the mirrored window: x changes its sign, and left and right joints change places.

    `order` [k] is `Skeleton.mirrored`. Its own inverse.
    """
    return parts[..., order, :] * (-1, 1)


def windows_around(joints: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Square windows [N x k x 4] around each joint of N poses [N x k x 2], of the N `sides` in pixels."""
    half = np.asarray(sides, np.float64)[:, None, None] / 2
    return np.concatenate([joints - half, joints + half], axis=-1)


def enlarged(boxes: np.ndarray, factor: float, square: bool = False) -> np.ndarray:
    """Boxes [N x 4] `factor` times as large; with `square` the longer side of each counts for both."""
    sides = _sides(boxes)
    sides = (sides.max(axis=-1, keepdims=True) if square else sides) * factor / 2
    return np.concatenate([_centres(boxes) - sides, _centres(boxes) + sides], axis=-1)


def longer_sides(boxes: np.ndarray) -> np.ndarray:
    """The longer side of each box [N x 4]."""
    return _sides(boxes).max(axis=-1)


def mean_over_labelled(values: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """The mean [k x 2] of `values` [N x k x 2] over the poses in which a joint is `labelled` (bool [N x k]); 0 without any."""
    counts = np.maximum(labelled.sum(axis=0), 1)[:, None]
    return np.where(labelled[..., None], values, 0).sum(axis=0) / counts


def displacement_statistics(displacements: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance [k x 2] of `displacements` [N x k x 2], per joint and axis, over the poses in which it is labelled."""
    mean = mean_over_labelled(displacements, labelled)
    return mean, mean_over_labelled((displacements - mean) ** 2, labelled)


def _centres(windows: np.ndarray) -> np.ndarray:
    return (windows[..., :2] + windows[..., 2:]) / 2


def _sides(windows: np.ndarray) -> np.ndarray:
    return windows[..., 2:] - windows[..., :2]
