"""Graph-based segmentation (Felzenszwalb and Huttenlocher, IJCV 2004): the initial regions of selective search.

Pixels are nodes, each joined by an edge to its eight neighbours; an edge weighs the Euclidean distance of the smoothed colours at
its ends. Edges are taken by rising weight. One joins the two regions at its ends if it weighs no more than the largest weight
inside either region plus k over that region's pixels. Then, again by rising weight, regions of less than `min_size` pixels are
joined to what they touch.

Colours are smoothed and compared in whole numbers, in steps of 1/32, so that no result hangs on the order of a sum. (The release
smooths in float32, and its equal weights come in the order of the C++ library's sort.) Edges of equal weight come in the order:
right, down, down and right, up and right; within each, from the top left pixel on, row by row.

Compiled functions call none of another file: numba's cache would not notice that one changed.

Shape shorthand: C channels of an H x W image with E edges.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from pipeline.errors import PipelineError

SIGMA = 0.8  # of selective search (selective_search_boxes.m of rbgirshick/rcnn); pixels

# Smoothed colours are in units of 2**-COLOUR_BITS, so that squared distances of three channels take 28 bits: two digits of the
# radix sort. The Gaussian's taps are in units of 2**-TAP_BITS; sums of a column are rounded by ROUNDED_BITS, so that sums of a
# row fit 31 bits.
COLOUR_BITS = 5
DIGIT_BITS = 14
TAP_BITS = 14
ROUNDED_BITS = 6


class SortedEdges(NamedTuple):
    """The edges of an image's graph by rising weight: `packed` uint64 [E] of an image of `height` x `width` pixels.

    An edge's high 32 bits are its squared weight, in units of 4**-COLOUR_BITS; its low 32 bits are four times the number of its
    first pixel (row-major) plus the direction of its second: 0 right, 1 down, 2 down and right, 3 up and right.
    """

    packed: np.ndarray
    height: int
    width: int


def segment(channels: np.ndarray, k: float, sigma: float = SIGMA, min_size: int | None = None) -> np.ndarray:
    """The regions of uint8 `channels` [C x H x W] as labels int32 [H x W]: 0, 1, ... in the order of their first pixels.

    A larger `k` prefers larger regions; `sigma` of the Gaussian is in pixels; regions have at least `min_size` pixels (default:
    k), or else there is only one. Raises PipelineError for an image of another kind or a value out of range.
    """
    return join_edges(sort_edges(channels, sigma), k, min_size)


def sort_edges(channels: np.ndarray, sigma: float = SIGMA) -> SortedEdges:
    """What the segmentations of one image for several k share. See `segment`."""
    if channels.ndim != 3 or channels.dtype != np.uint8 or not 1 <= len(channels) <= 3 or not channels.size:
        raise PipelineError(
            f"segmentation needs 1 to 3 channels of uint8 [C x H x W], not {channels.dtype} {list(channels.shape)}; convert them"
        )
    if not 0 <= sigma < np.inf:
        raise PipelineError(f"sigma is {sigma}; it must be a number of pixels, 0 or more")
    _, height, width = channels.shape
    if height * width >= 2**30:
        raise PipelineError(f"an image of {width} x {height} pixels is too large to segment; shrink it below 2^30 pixels")
    taps = gaussian_taps(sigma)
    smoothed = np.stack([_smooth(channel, taps) for channel in np.ascontiguousarray(channels)])
    return SortedEdges(_sort(_weigh(smoothed), height, width), height, width)


def join_edges(edges: SortedEdges, k: float, min_size: int | None = None) -> np.ndarray:
    """Labels of the segmentation with threshold `k` of the image that has these `edges`. See `segment`."""
    min_size = round(k) if min_size is None else min_size
    if not 0 <= k < np.inf or min_size < 0:
        raise PipelineError(f"k is {k} and min_size {min_size}; both must be 0 or more")
    pixels = edges.height * edges.width
    labels = _join(edges.packed, pixels, edges.width, np.float32(k * 2**COLOUR_BITS), min(min_size, pixels))
    return labels.reshape(edges.height, edges.width)


def gaussian_taps(sigma: float) -> np.ndarray:
    """A Gaussian's values, int32, odd in number, in units of 2**-TAP_BITS; they sum to one. The release's reach: 4 sigma."""
    reach = int(np.ceil(4 * sigma))
    values = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-9)) ** 2)
    taps = np.rint(values / values.sum() * 2**TAP_BITS).astype(np.int32)
    taps[reach] += 2**TAP_BITS - taps.sum()
    empty = int((taps[:reach] == 0).sum())
    return taps[empty : len(taps) - empty]


@njit(nogil=True, cache=True)
def _smooth(channel, taps):
    """`channel` uint8 [H x W] convolved with `taps` both ways; pixels beyond the border are those on it. int16 [H x W]."""
    height, width = channel.shape
    reach = len(taps) // 2
    smoothed = np.empty((height, width), np.int16)
    row = np.empty(width + 2 * reach, np.int32)
    sums = np.empty(width, np.int32)
    shift = 2 * TAP_BITS - ROUNDED_BITS - COLOUR_BITS
    for y in range(height):
        row[:] = 1 << (ROUNDED_BITS - 1)
        for tap in range(-reach, reach + 1):
            weight = taps[reach + tap]
            source = channel[min(max(y + tap, 0), height - 1)]
            for x in range(width):
                row[reach + x] += weight * np.int32(source[x])
        for x in range(width):
            row[reach + x] >>= ROUNDED_BITS
        row[:reach] = row[reach]
        row[reach + width :] = row[reach + width - 1]
        sums[:] = 1 << (shift - 1)
        for tap in range(2 * reach + 1):
            weight = taps[tap]
            for x in range(width):
                sums[x] += weight * row[tap + x]
        for x in range(width):
            smoothed[y, x] = sums[x] >> shift
    return smoothed


@njit(nogil=True, cache=True)
def _weigh(smoothed):
    """Squared weights uint32 [4 x HW] of the edges that leave each pixel in the four directions; 0 where there is none."""
    channels, height, width = smoothed.shape
    squares = np.zeros((4, height * width), np.uint32)
    for y in range(height):
        for channel in range(channels):
            here = smoothed[channel, y]
            first = y * width
            for x in range(width - 1):
                difference = np.int32(here[x]) - np.int32(here[x + 1])
                squares[0, first + x] += np.uint32(difference * difference)
            if y + 1 < height:
                below = smoothed[channel, y + 1]
                for x in range(width):
                    difference = np.int32(here[x]) - np.int32(below[x])
                    squares[1, first + x] += np.uint32(difference * difference)
                for x in range(width - 1):
                    difference = np.int32(here[x]) - np.int32(below[x + 1])
                    squares[2, first + x] += np.uint32(difference * difference)
            if y > 0:
                above = smoothed[channel, y - 1]
                for x in range(width - 1):
                    difference = np.int32(here[x]) - np.int32(above[x + 1])
                    squares[3, first + x] += np.uint32(difference * difference)
    return squares


@njit(nogil=True, cache=True)
def _sort(squares, height, width):
    """The edges packed and sorted by weight; a stable radix sort of two digits. `squares` as of `_weigh`; see SortedEdges."""
    mask = np.uint32((1 << DIGIT_BITS) - 1)
    low_end = np.zeros((1 << DIGIT_BITS) + 1, np.int64)  # first where a digit begins, at last where it ends
    high_end = np.zeros((1 << DIGIT_BITS) + 1, np.int64)
    # The pixels from which an edge goes in each direction: rows from, rows to, columns to.
    rows_from = (0, 0, 0, 1)
    rows_to = (height, height - 1, height - 1, height)
    columns_to = (width - 1, width, width - 1, width - 1)
    for direction in range(4):
        for y in range(rows_from[direction], rows_to[direction]):
            for x in range(columns_to[direction]):
                square = squares[direction, y * width + x]
                low_end[(square & mask) + 1] += 1
                high_end[(square >> np.uint32(DIGIT_BITS)) + 1] += 1
    for digit in range(1 << DIGIT_BITS):
        low_end[digit + 1] += low_end[digit]
        high_end[digit + 1] += high_end[digit]
    count = low_end[1 << DIGIT_BITS]
    by_low_digit = np.empty(count, np.uint64)
    for direction in range(4):
        for y in range(rows_from[direction], rows_to[direction]):
            for x in range(columns_to[direction]):
                square = squares[direction, y * width + x]
                place = square & mask
                edge = np.uint64(4 * (y * width + x) + direction)
                by_low_digit[low_end[place]] = (np.uint64(square) << np.uint64(32)) | edge
                low_end[place] += 1
    packed = np.empty(count, np.uint64)
    for edge in by_low_digit:
        place = edge >> np.uint64(32 + DIGIT_BITS)
        packed[high_end[place]] = edge
        high_end[place] += 1
    return packed


@njit(nogil=True, cache=True)
def _find(parent, node):
    """The root of `node`'s tree; halves the path to it."""
    while parent[node] != node:
        above = parent[parent[node]]
        parent[node] = above
        node = above
    return node


@njit(nogil=True, cache=True)
def _join(packed, pixels, width, k, min_size):
    """Labels int32 [pixels]. `k` is in units of 2**-COLOUR_BITS."""
    parent = np.arange(pixels).astype(np.int32)
    size = np.ones(pixels, np.int32)
    limit = np.full(pixels, k, np.float32)  # of a root: the weight up to which its region joins another
    step = np.array([1, width, width + 1, 1 - width], np.int32)
    for edge in packed:
        first = np.int32(np.uint32(edge) >> np.uint32(2))
        a = _find(parent, first)
        b = _find(parent, first + step[edge & np.uint64(3)])
        if a != b:
            weight = np.float32(np.sqrt(np.float32(edge >> np.uint64(32))))
            if weight <= limit[a] and weight <= limit[b]:
                if size[a] < size[b]:
                    a, b = b, a
                parent[b] = a
                size[a] += size[b]
                limit[a] = weight + k / np.float32(size[a])
    for pixel in range(pixels):
        parent[pixel] = _find(parent, pixel)
    # Most edges lie inside a region by now, or between large ones: sorted out first, without searching and without branches.
    between = np.empty(len(packed), np.uint32)
    count = 0
    for edge in packed:
        first = np.int32(np.uint32(edge) >> np.uint32(2))
        a, b = parent[first], parent[first + step[edge & np.uint64(3)]]
        between[count] = np.uint32(edge)
        count += (a != b) & (min(size[a], size[b]) < min_size)
    for edge in between[:count]:
        first = np.int32(edge >> np.uint32(2))
        a = _find(parent, first)
        b = _find(parent, first + step[edge & np.uint32(3)])
        if a != b and min(size[a], size[b]) < min_size:
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
    labels = np.empty(pixels, np.int32)
    number = np.full(pixels, -1, np.int32)
    regions = np.int32(0)
    for pixel in range(pixels):
        root = _find(parent, pixel)
        if number[root] < 0:
            number[root] = regions
            regions += 1
        labels[pixel] = number[root]
    return labels
