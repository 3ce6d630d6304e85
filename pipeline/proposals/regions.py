"""What selective search needs of a region: size, box, colours, texture, neighbours (Uijlings et al. 2013, section 3.2).

Histograms are held as counts, so that those of joined regions are exact sums.
Compiled functions call none of another file: numba's cache would not notice that one changed.

Shape shorthand: C channels of an H x W image, R regions, E pairs of neighbours.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

COLOUR_BINS = 25
DIRECTIONS = 8
TEXTURE_BINS = 10

# Texture is the derivative of a Gaussian with this sigma, in pixels.
TEXTURE_SIGMA = 1.0
# Derivatives, in grey levels per pixel, of this size and above lie in the last bin. (An edge from black to white has 102.) The
# paper does not say where its bins end; with 25 to 102, recall on VOC trainval is the same, and lower ends give fewer boxes.
# NOTE: the release (BlobStructTextureHist.m, BlobStructColourHist.m) rounds to the nearest bin, its Gaussian has sigma 0.8, its
# bins end at 110, and it takes the first channel's texture for all three. Recall of `fast` at 0.5 and 0.7 on VOC trainval: 0.873
# and 0.631 as here, 0.875 and 0.630 with its bins and sigma in every channel, 0.872 and 0.617 with the first channel's alone.
STRONGEST = 35.0

# A derivative in one direction is minus that in the opposite one: one signed bin, -9 to 9, counts for both.
SIGNED_BINS = 2 * TEXTURE_BINS - 1
BINS = COLOUR_BINS + DIRECTIONS // 2 * SIGNED_BINS  # of a channel
PLANES = 1 + DIRECTIONS // 2  # of a channel: one bin of colour, one of each pair of directions
TAP_BITS = 11
MAX_PIXELS = 2**32 // (3 * DIRECTIONS)  # counts of a region's texture fit 32 bits


class Regions(NamedTuple):
    """The initial regions of an image.

    `sizes` int64 [R] in pixels; `boxes` int32 [R x 4], 0-based with exclusive x2 and y2; counts uint32 `colours` [R x 25 C], in
    all C times the size, and `textures` [R x 80 C], in all 8 C times the size; `pairs` int32 [E x 2] of regions that share a
    side of a pixel, each once, the smaller number first.
    """

    sizes: np.ndarray
    boxes: np.ndarray
    colours: np.ndarray
    textures: np.ndarray
    pairs: np.ndarray


def pixel_bins(channels: np.ndarray) -> np.ndarray:
    """The bins in which each pixel of uint8 `channels` [C x H x W] counts, for all segmentations of a colour space: [HW x 5 C].

    Of each channel its colour's bin, then the signed bins of the derivatives to the right, down right, down and down left.
    """
    channel_count, height, width = channels.shape
    bins = np.empty((height * width, PLANES * channel_count), np.uint16)
    smooth, slope = _derivative_taps()
    for number, channel in enumerate(np.ascontiguousarray(channels)):
        _bin_channel(channel, smooth, slope, number, bins)
    return bins


def describe_regions(labels: np.ndarray, bins: np.ndarray) -> Regions:
    """The regions of a segmentation's `labels` [H x W] of an image with these `bins` (see `pixel_bins`)."""
    count = int(labels.max()) + 1
    sizes, boxes = _measure(labels, count)
    channels = bins.shape[1] // PLANES
    colours, textures = _count(labels.reshape(-1), bins, count, channels)
    return Regions(sizes, boxes, colours, textures, _neighbours(labels, count))


def _derivative_taps() -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian, summing to one, and its derivative, which gives a slope of one its value one; in units of 2**-TAP_BITS."""
    reach = int(np.ceil(3 * TEXTURE_SIGMA))
    place = np.arange(-reach, reach + 1)
    smooth = np.exp(-0.5 * (place / TEXTURE_SIGMA) ** 2)
    slope = place * smooth
    smooth = np.rint(smooth / smooth.sum() * 2**TAP_BITS).astype(np.int32)
    smooth[reach] += 2**TAP_BITS - smooth.sum()
    return smooth, np.rint(slope / (slope * place).sum() * 2**TAP_BITS).astype(np.int32)


@njit(nogil=True, cache=True)
def _bin_channel(channel, smooth, slope, number, bins):
    """Writes the bins of `channel` [H x W], number `number`, into its columns of `bins`."""
    height, width = channel.shape
    reach = len(smooth) // 2
    columns_smooth = np.empty(width + 2 * reach, np.int32)
    columns_slope = np.empty(width + 2 * reach, np.int32)
    right = np.empty(width, np.int32)
    down = np.empty(width, np.int32)
    # Right and down are in grey levels times 2 ** (2 TAP_BITS); halves of the diagonal ones' sum, times the root of two.
    straight = np.float32(TEXTURE_BINS / STRONGEST / 2 ** (2 * TAP_BITS))
    diagonal = np.float32(TEXTURE_BINS / STRONGEST / 2 ** (2 * TAP_BITS) / np.sqrt(2.0))
    first_bin = number * BINS
    column = number * PLANES
    for y in range(height):
        columns_smooth[:] = 0
        columns_slope[:] = 0
        for tap in range(-reach, reach + 1):
            weight, lean = smooth[reach + tap], slope[reach + tap]
            source = channel[min(max(y + tap, 0), height - 1)]
            for x in range(width):
                columns_smooth[reach + x] += weight * np.int32(source[x])
                columns_slope[reach + x] += lean * np.int32(source[x])
        for columns in (columns_smooth, columns_slope):
            columns[:reach] = columns[reach]
            columns[reach + width :] = columns[reach + width - 1]
        right[:] = 0
        down[:] = 0
        for tap in range(2 * reach + 1):
            weight, lean = smooth[tap], slope[tap]
            for x in range(width):
                right[x] += lean * columns_smooth[tap + x]
                down[x] += weight * columns_slope[tap + x]
        for x in range(width):
            pixel = y * width + x
            bins[pixel, column] = first_bin + np.int32(channel[y, x]) * COLOUR_BINS // 256
            to_right, to_down = np.float32(right[x]), np.float32(down[x])
            middle = first_bin + COLOUR_BINS + TEXTURE_BINS - 1
            last = np.float32(TEXTURE_BINS - 1)
            bins[pixel, column + 1] = middle + np.int32(min(max(straight * to_right, -last), last))
            bins[pixel, column + 2] = middle + SIGNED_BINS + np.int32(min(max(diagonal * (to_right + to_down), -last), last))
            bins[pixel, column + 3] = middle + 2 * SIGNED_BINS + np.int32(min(max(straight * to_down, -last), last))
            bins[pixel, column + 4] = middle + 3 * SIGNED_BINS + np.int32(min(max(diagonal * (to_down - to_right), -last), last))


@njit(nogil=True, cache=True)
def _measure(labels, count):
    height, width = labels.shape
    sizes = np.zeros(count, np.int64)
    boxes = np.empty((count, 4), np.int32)
    boxes[:, 0] = width
    boxes[:, 1] = height
    boxes[:, 2:] = 0
    for y in range(height):
        x = 0
        while x < width:
            region = labels[y, x]
            start = x
            while x < width and labels[y, x] == region:
                x += 1
            sizes[region] += x - start
            boxes[region, 0] = min(boxes[region, 0], start)
            boxes[region, 1] = min(boxes[region, 1], y)
            boxes[region, 2] = max(boxes[region, 2], x)
            boxes[region, 3] = y + 1
    return sizes, boxes


@njit(nogil=True, cache=True)
def _count(labels, bins, count, channels):
    """The histograms of colour and texture of each region; see Regions."""
    counts = np.zeros((count, channels * BINS), np.uint32)
    planes = bins.shape[1]
    for pixel in range(len(labels)):
        region = counts[labels[pixel]]
        for plane in range(planes):
            region[bins[pixel, plane]] += np.uint32(1)
    colours = np.empty((count, channels * COLOUR_BINS), np.uint32)
    textures = np.empty((count, channels * DIRECTIONS * TEXTURE_BINS), np.uint32)
    for region in range(count):
        for channel in range(channels):
            of_channel = counts[region, channel * BINS : (channel + 1) * BINS]
            for i in range(COLOUR_BINS):  # assigning one array to another takes numba seconds to compile
                colours[region, channel * COLOUR_BINS + i] = of_channel[i]
            for direction in range(DIRECTIONS):
                pair = direction % (DIRECTIONS // 2)
                middle = COLOUR_BINS + pair * SIGNED_BINS + TEXTURE_BINS - 1
                sign = 1 if direction < DIRECTIONS // 2 else -1
                first = (channel * DIRECTIONS + direction) * TEXTURE_BINS
                # What does not rise in this direction lies in its first bin.
                flat = of_channel[middle]
                for step in range(1, TEXTURE_BINS):
                    textures[region, first + step] = of_channel[middle + sign * step]
                    flat += of_channel[middle - sign * step]
                textures[region, first] = flat
    return colours, textures


@njit(nogil=True, cache=True)
def _neighbours(labels, count):
    """Pairs of regions that share a side of a pixel, in the order in which rows meet them; see Regions."""
    height, width = labels.shape
    capacity = 1024  # of an open-addressed table of pairs, at most half full
    table = np.full(capacity, np.int64(-1))
    pairs = np.empty((capacity // 2, 2), np.int32)
    num_pairs = 0
    for y in range(height):
        last = np.int64(-1)
        for x in range(width):
            here = labels[y, x]
            for side in range(2):
                if side == 0 and x + 1 < width:
                    there = labels[y, x + 1]
                elif side == 1 and y + 1 < height:
                    there = labels[y + 1, x]
                else:
                    continue
                if there == here:
                    continue
                code = np.int64(min(here, there)) * count + max(here, there)
                if code == last:
                    continue
                last = code
                place = (code * np.int64(7919)) & (capacity - 1)
                while table[place] >= 0 and table[place] != code:
                    place = (place + 1) & (capacity - 1)
                if table[place] < 0:
                    table[place] = code
                    pairs[num_pairs, 0], pairs[num_pairs, 1] = min(here, there), max(here, there)
                    num_pairs += 1
                    if num_pairs == capacity // 2:
                        capacity *= 2
                        table = np.full(capacity, np.int64(-1))
                        more = np.empty((capacity // 2, 2), np.int32)
                        for i in range(num_pairs):
                            more[i, 0], more[i, 1] = pairs[i, 0], pairs[i, 1]
                            old = np.int64(pairs[i, 0]) * count + pairs[i, 1]
                            place = (old * np.int64(7919)) & (capacity - 1)
                            while table[place] >= 0:
                                place = (place + 1) & (capacity - 1)
                            table[place] = old
                        pairs = more
    return pairs[:num_pairs].copy()
