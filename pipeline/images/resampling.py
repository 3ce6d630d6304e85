"""Windows of an image, resized bilinearly and normalised in one pass: R-CNN's crops, and whole images for shared maps.

Shape shorthand: H, W height and width of the image; N windows; R rows and C columns of a result. Pairs are (x, y).
"""

import numpy as np
from numba import njit
from numpy.typing import ArrayLike


def resample(
    image: np.ndarray, geometry: tuple[np.ndarray, np.ndarray, np.ndarray], mirror: np.ndarray, out: np.ndarray, *,
    mean: ArrayLike, std: ArrayLike,
) -> None:
    """Resizes windows of `image` (uint8 RGB [H x W x 3]) into their places in `out` (float32 [N x R x C x 3], contiguous).

    `geometry` is windows, offsets and sizes, all int64. Window n, (x1, y1, x2, y2) in pixels, ends exclusive, inside the image,
    is resized to sizes[n] at offsets[n] [N x 2] of out[n], which is then flipped from left to right where `mirror[n]`. Values
    become (value - mean) / std, with `mean` and `std` [3] in grey levels (0..255); around them is 0.

    Half-pixel centres, the window's own border replicated, no antialiasing, float32. Runs without the GIL.

    Raises ValueError on an image of another type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image is {image.dtype} {image.shape}, expected uint8 [H x W x 3]")
    rows = np.ascontiguousarray(image).reshape(len(image), -1)
    windows, offsets, sizes = (np.ascontiguousarray(each, np.int64) for each in geometry)
    scale = (1 / np.asarray(std, np.float64)).astype(np.float32)
    colours = np.asarray(mean, np.float32), scale
    _resample(rows, (windows, offsets, sizes), mirror, colours, out.reshape(*out.shape[:2], 3 * out.shape[2]))


@njit(nogil=True, cache=True)
def _taps(source, target, flip):
    """Both source pixels and the second one's weight for each of `target` pixels that a line of `source` pixels is resized to."""
    first, second = np.empty(target, np.intp), np.empty(target, np.intp)
    weight = np.empty(target, np.float32)
    for i in range(target):
        position = max((i + 0.5) * source / target - 0.5, 0.0)
        j = target - 1 - i if flip else i
        first[j] = int(position)
        second[j] = min(first[j] + 1, source - 1)
        weight[j] = position - first[j]
    return first, second, weight


@njit(nogil=True, cache=True)
def _blend_rows(rows, weight, mean, scale, line):
    upper, lower = rows
    for i in range(len(line)):
        value = np.float32(upper[i])
        value += weight * (np.float32(lower[i]) - value)
        line[i] = (value - mean[i]) * scale[i]


@njit(nogil=True, cache=True)
def _stretch(line, first, second, weight, out):
    # Locals, because the compiler must assume that `out` overlaps the tables, and would read them again for each channel.
    for x in range(len(first)):
        left, right, share = 3 * first[x], 3 * second[x], weight[x]
        for c in range(3):
            value = line[left + c]
            out[3 * x + c] = value + share * (line[right + c] - value)


@njit(nogil=True, cache=True)
def _repeat(values, length):
    repeated = np.empty(length, np.float32)
    for i in range(length):
        repeated[i] = values[i % len(values)]
    return repeated


@njit(nogil=True, cache=True)
def _resample(image, geometry, mirror, colours, out):
    """Resizes each window of `image` [H x 3W] into its place in `out` [N x R x 3C]; `colours`: means and scales of the channels.

    Rows before columns, and the mean at once: the compiler vectorises over whole rows, and only the stretching has to gather.
    """
    window, offset, size = geometry
    line = np.empty(image.shape[1], np.float32)
    mean, scale = _repeat(colours[0], image.shape[1]), _repeat(colours[1], image.shape[1])
    for n in range(len(out)):
        x1, y1, x2, y2 = 3 * window[n, 0], window[n, 1], 3 * window[n, 2], window[n, 3]
        (left, top), (width, height) = offset[n], size[n]
        if mirror[n]:
            left = out.shape[2] // 3 - left - width
        bottom, left, right = top + height, 3 * left, 3 * (left + width)
        out[n, :top], out[n, bottom:] = 0, 0
        out[n, top:bottom, :left], out[n, top:bottom, right:] = 0, 0
        upper, lower, row_weight = _taps(y2 - y1, height, False)
        first, second, column_weight = _taps((x2 - x1) // 3, width, mirror[n])
        for y in range(height):
            rows = image[y1 + upper[y], x1:x2], image[y1 + lower[y], x1:x2]
            _blend_rows(rows, row_weight[y], mean[x1:x2], scale[x1:x2], line[: x2 - x1])
            _stretch(line, first, second, column_weight, out[n, top + y, left:right])
