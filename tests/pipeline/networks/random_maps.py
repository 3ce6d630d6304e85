"""Random maps of cells, and regions and windows of them."""

import numpy as np


def make_map(height, width, depth, seed=0):
    """Whole numbers from -4 to 4, [h x w x D]: many are equal, zeros have either sign, and 16-bit floats hold them exactly."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 5, (height, width, depth)) * rng.choice([-1.0, 1.0], (height, width, depth))).astype(np.float32)


def make_rois(count, height, width, seed=0):
    """Regions in units of cells, on quarters: many over the border, some outside, some reversed."""
    centre = np.random.default_rng(seed).uniform([-2, -2], [width + 2, height + 2], (count, 2))
    half = np.random.default_rng(seed + 1).uniform(-1, 0.7, (count, 2)) * [width, height]
    return (np.concatenate([centre - half, centre + half], axis=1) * 4).round().astype(np.float32) / 4


def make_windows(count, height, width, seed=0):
    edges = np.random.default_rng(seed).random((count, 2, 2)) * [width, height]
    first, last = np.sort(edges.astype(np.int64), axis=1).transpose(1, 0, 2)
    return np.concatenate([first, last + 1], axis=1)
