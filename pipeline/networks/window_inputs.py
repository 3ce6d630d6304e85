"""Windows of images as a network's input: resized to squares and normalised. What is outside the image is 0.

Shape shorthand: B windows of a batch, N of one image, S side of the network's input.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.datasets.records import ImageRecord
from pipeline.images.resampling import resample
from pipeline.networks.backbones import Normalisation


def whole_pixels(windows: np.ndarray) -> np.ndarray:
    """Windows [... x 4] moved to whole pixels, int64, at least one pixel wide and high."""
    first = np.floor(windows[..., :2] + 0.5).astype(np.int64)
    last = np.maximum(np.floor(windows[..., 2:] + 0.5).astype(np.int64), first + 1)
    return np.concatenate([first, last], axis=-1)


def crop(pixels: np.ndarray, windows: np.ndarray, mirrored: np.ndarray, side: int, norm: Normalisation) -> np.ndarray:
    """Windows [N x 4] of `pixels` (uint8 [H x W x 3]) as squares, float32 [N x S x S x 3], normalised by `norm`.

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
    images: Sequence[ImageRecord], read: Callable[[ImageRecord], np.ndarray], numbers: np.ndarray, windows: np.ndarray,
    mirrored: np.ndarray, *, side: int, norm: Normalisation,
) -> np.ndarray:
    """`windows` [B x 4] of the images `numbers` [B], `mirrored` bool [B]: float32 [B x S x S x 3]. Each image is read once."""
    values = np.empty((len(numbers), side, side, 3), np.float32)
    for number in np.unique(numbers):
        rows = np.flatnonzero(numbers == number)
        values[rows] = crop(read(images[number]), windows[rows], mirrored[rows], side, norm)
    return values


def as_input(values: np.ndarray, device: torch.device) -> Tensor:
    """Values [B x S x S x 3] as a network's input [B x 3 x S x S], in channels-last memory."""
    return torch.from_numpy(values).to(device).permute(0, 3, 1, 2)
