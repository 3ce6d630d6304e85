"""Selective search once more, slowly: in pure Python and NumPy, after the papers and not after our compiled code.

`exact=True` follows our rules of rounding (segmentation.py); `exact=False` is the plain float64 procedure, with no rounding.
"""

from fractions import Fraction

import numpy as np
from scipy.ndimage import correlate1d

from pipeline.proposals.regions import STRONGEST
from pipeline.proposals.segmentation import COLOUR_BITS, ROUNDED_BITS, TAP_BITS, gaussian_taps

STEPS = ((0, 1), (1, 0), (1, 1), (-1, 1))  # right, down, down and right, up and right


def smooth(channel: np.ndarray, sigma: float, exact: bool) -> np.ndarray:
    """A channel [H x W], smoothed; in grey levels."""
    if exact:
        taps = gaussian_taps(sigma).astype(np.int64)
        columns = (correlate1d(channel.astype(np.int64), taps, axis=0, mode="nearest") + 2 ** (ROUNDED_BITS - 1)) >> ROUNDED_BITS
        shift = 2 * TAP_BITS - ROUNDED_BITS - COLOUR_BITS
        return ((correlate1d(columns, taps, axis=1, mode="nearest") + 2 ** (shift - 1)) >> shift) / 2**COLOUR_BITS
    if not sigma:
        return channel.astype(np.float64)
    place = np.arange(-np.ceil(4 * sigma), np.ceil(4 * sigma) + 1)
    taps = np.exp(-0.5 * (place / sigma) ** 2)
    taps /= taps.sum()
    rows = correlate1d(channel.astype(np.float64), taps, axis=0, mode="nearest")
    return correlate1d(rows, taps, axis=1, mode="nearest")


def segment(channels: np.ndarray, k: float, sigma: float, min_size: int, exact: bool = True) -> np.ndarray:
    """Labels [H x W]."""
    smoothed = np.stack([smooth(channel, sigma, exact) for channel in channels])
    _, height, width = channels.shape
    edges = []
    for down, right in STEPS:
        for y in range(height):
            for x in range(width - right):
                if 0 <= y + down < height:
                    difference = smoothed[:, y, x] - smoothed[:, y + down, x + right]
                    edges.append((float((difference**2).sum()), y * width + x, (y + down) * width + x + right))
    edges.sort(key=lambda edge: edge[0])  # stable
    region = {pixel: {pixel} for pixel in range(height * width)}
    number = np.float32 if exact else np.float64
    inner = {pixel: number(0) for pixel in region}  # the largest weight inside, at its first pixel

    def join(a: int, b: int) -> int:
        together = region[a] | region[b]
        for pixel in together:
            region[pixel] = together
        return min(together)

    for square, a, b in edges:
        if region[a] is not region[b]:
            weight = number(np.sqrt(number(square)))
            limits = [inner[min(part)] + number(k) / number(len(part)) for part in (region[a], region[b])]
            if weight <= min(limits):
                inner[join(a, b)] = weight
    for _, a, b in edges:
        if region[a] is not region[b] and min(len(region[a]), len(region[b])) < min_size:
            join(a, b)
    firsts = sorted({min(part) for part in region.values()})
    return np.array([firsts.index(min(region[pixel])) for pixel in range(height * width)]).reshape(height, width)


def pixel_histograms(channels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bins of each pixel: of colours [C x H x W], 25 a channel, and of textures [8 C x H x W], 10 each."""
    colours = np.stack([channel.astype(int) * 25 // 256 for channel in channels])
    place = np.arange(-3, 4)
    gaussian = np.exp(-0.5 * place**2)
    slope = place * gaussian
    gaussian, slope = (np.rint(taps / norm * 2048) for taps, norm in ((gaussian, gaussian.sum()), (slope, (slope * place).sum())))
    gaussian[3] += 2048 - gaussian.sum()
    textures = []
    for channel in channels.astype(np.float64):
        right = correlate1d(correlate1d(channel, gaussian, 0, mode="nearest"), slope, 1, mode="nearest") / 2048**2
        down = correlate1d(correlate1d(channel, slope, 0, mode="nearest"), gaussian, 1, mode="nearest") / 2048**2
        for angle in np.arange(8) * np.pi / 4:
            response = np.maximum(right * np.cos(angle) + down * np.sin(angle), 0)
            textures.append(np.minimum(np.floor(response / STRONGEST * 10 + 1e-9), 9).astype(int))
    return colours, np.stack(textures)


def histogram(bins: np.ndarray, pixels: np.ndarray, count: int) -> list[Fraction]:
    """Histograms of all planes of `bins` over the pixels of a mask, one after another, normalised together."""
    counts = np.concatenate([np.bincount(plane[pixels], minlength=count) for plane in bins])
    return [Fraction(int(number), int(counts.sum())) for number in counts]


def box(pixels: np.ndarray) -> tuple[int, int, int, int]:
    y, x = np.nonzero(pixels)
    return x.min(), y.min(), x.max() + 1, y.max() + 1


def similarity(a: np.ndarray, b: np.ndarray, colours: np.ndarray, textures: np.ndarray) -> list[float]:
    """Colour, texture, size and fill similarity of the regions with masks `a` and `b`."""
    intersections = [
        float(sum(map(min, histogram(bins, a, count), histogram(bins, b, count))))
        for bins, count in ((colours, 25), (textures, 10))
    ]
    x1, y1, x2, y2 = box(a | b)
    both = int(a.sum()) + int(b.sum())
    return [*intersections, 1 - both / a.size, 1 - (int((x2 - x1) * (y2 - y1)) - both) / a.size]


def touch(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether a side of a pixel of `a` is one of `b`."""
    return bool((a[1:] & b[:-1]).any() or (a[:-1] & b[1:]).any() or (a[:, 1:] & b[:, :-1]).any() or (a[:, :-1] & b[:, 1:]).any())


def group(labels: np.ndarray, channels: np.ndarray, chosen: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """The boxes of all regions of the hierarchy, in the order in which they were made."""
    colours, textures = pixel_histograms(channels)
    masks = {number: labels == number for number in range(labels.max() + 1)}
    boxes = [box(mask) for mask in masks.values()]

    def score(a: int, b: int) -> float:
        parts = similarity(masks[a], masks[b], colours, textures)
        return sum(parts[part] for part in sorted(chosen))

    scores = {(a, b): score(a, b) for a in masks for b in masks if a < b and touch(masks[a], masks[b])}
    while scores:
        a, b = min(scores, key=lambda pair: (-scores[pair], pair))
        new = len(boxes)
        masks[new] = masks.pop(a) | masks.pop(b)
        boxes.append(box(masks[new]))
        scores = {pair: value for pair, value in scores.items() if not {a, b} & {*pair}}
        scores |= {(old, new): score(old, new) for old in masks if old != new and touch(masks[old], masks[new])}
    return boxes
