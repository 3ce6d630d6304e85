"""Label maps for people: in the palette's colours, and laid over their image."""

import numpy as np
from PIL import Image

from pipeline.datasets.masks import palette

OPACITY = 0.6  # of a class's colour over the image


def colours(labels: np.ndarray) -> np.ndarray:
    """The palette's colours of `labels` [H x W], uint8 [H x W x 3]."""
    return palette()[labels]


def overlay(pixels: np.ndarray, labels: np.ndarray, has_background: bool = True) -> Image.Image:
    """`pixels`, uint8 [H x W x 3], with the colour of each pixel's class over it; the background 0 stays as it is."""
    blended = (1 - OPACITY) * pixels + OPACITY * colours(labels)
    if has_background:
        blended = np.where((labels == 0)[..., None], pixels, blended)
    return Image.fromarray(blended.round().astype(np.uint8))


def pixel_counts(labels: np.ndarray, names: tuple[str, ...]) -> dict[str, int]:
    """How many pixels each class has in `labels` [H x W], by name; only classes that occur."""
    values, counts = np.unique(labels, return_counts=True)
    return {names[value]: count for value, count in zip(values.tolist(), counts.tolist(), strict=True)}
