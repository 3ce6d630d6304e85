"""Changing light: training sees every image with another contrast and brightness, half the time with inverted colours.

As for AlexNet's classifier (Krizhevsky et al. 2012, section 4.1), but not along the colours' principal axes: each channel changes
on its own. Values here are normalised (mean 0, one deviation).
"""

import numpy as np

CONTRAST = 0.5, 1.5
BRIGHTNESS = 0.3  # deviation


def draw_light(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The light of `count` images: values become `gain` times themselves plus `offset`, both float32 [count x 3]."""
    sign = generator.choice([-1, 1], (count, 1))
    gain = (sign * generator.uniform(*CONTRAST, (count, 3))).astype(np.float32)
    return gain, generator.normal(0, BRIGHTNESS, (count, 3)).astype(np.float32)


def relight(crops: np.ndarray, generator: np.random.Generator) -> None:
    """Changes the light of each of `crops` (float32 [B x S x S x 3]) in place."""
    gain, offset = draw_light(generator, len(crops))
    rows = crops.reshape(*crops.shape[:2], -1)  # a view; NumPy is slow over an innermost axis of three
    rows *= np.tile(gain, crops.shape[2])[:, None]
    rows += np.tile(offset, crops.shape[2])[:, None]
