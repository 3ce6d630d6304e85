"""Windows of images as a network's input: resized to squares and normalised. What is outside the image is 0."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.records import ImageRecord
from pipeline.images.resampling import resample
from pipeline.networks.backbones import Normalisation


@dataclass(frozen=True, eq=False)
class Batch:
    """B windows: the numbers of their images and whole pixels [B x 4]; N(y; b) of the joints, float32 [B x k x 2].

    `labelled` bool [B x k] says which count. The window is `mirrored` (bool [B]), and so are its targets.
    """

    image: np.ndarray
    windows: np.ndarray
    targets: np.ndarray
    labelled: np.ndarray
    mirrored: np.ndarray


def whole_pixels(windows: np.ndarray) -> np.ndarray:
    """Windows [... x 4] moved to whole pixels, int64, at least one pixel wide and high."""
    first = np.floor(windows[..., :2] + 0.5).astype(np.int64)
    last = np.maximum(np.floor(windows[..., 2:] + 0.5).astype(np.int64), first + 1)
    return np.concatenate([first, last], axis=-1)


def crop(pixels: np.ndarray, windows: np.ndarray, mirrored: np.ndarray, side: int, norm: Normalisation) -> np.ndarray:
    """Windows [N x 4] of `pixels` (uint8 [H x W x 3]) as squares, float32 [N x side x side x 3], normalised by `norm`.

    `windows` are whole pixels; those that are `mirrored` (bool [N]) are flipped from left to right.
    """
    size = np.array([pixels.shape[1], pixels.shape[0]] * 2)
    # Of a window that lies beside the image, the nearest pixel is shown: it has a place in every window.
    inside = np.clip(windows, 0, size - (1, 1, 0, 0))
    inside[:, 2:] = np.maximum(inside[:, 2:], inside[:, :2] + 1)
    first, sides = windows[:, :2], windows[:, 2:] - windows[:, :2]
    places = np.round((inside[:, :2] - first) / sides * side).astype(np.int64)
    ends = np.round((inside[:, 2:] - first) / sides * side).astype(np.int64)
    places = np.clip(places, 0, side - 1)
    ends = np.clip(ends, places + 1, side)
    out = np.empty((len(windows), side, side, 3), np.float32)
    resample(pixels, (inside, places, ends - places), mirrored, out, mean=norm.mean, std=norm.std)
    return out


def crop_batch(
    images: Sequence[ImageRecord], read: Callable[[ImageRecord], np.ndarray], batch: Batch, side: int, norm: Normalisation
) -> np.ndarray:
    """The windows of `batch`, each image read once: float32 [B x side x side x 3]."""
    values = np.empty((len(batch.image), side, side, 3), np.float32)
    for number in np.unique(batch.image):
        rows = np.flatnonzero(batch.image == number)
        values[rows] = crop(read(images[number]), batch.windows[rows], batch.mirrored[rows], side, norm)
    return values
