"""Hierarchical grouping (Uijlings et al. 2013, algorithm 1): join the two most similar neighbours until one region is left.

The similarity of two regions is a sum of some of four, each in 0 to 1 (section 3.2): colour and texture, the intersection of the
histograms; size, by which small regions join early; fill, by which regions join that fit into each other.

Histograms are intersected in whole numbers, so that no result depends on the order of a sum. Pairs of equal similarity are joined
in the order of their regions' numbers.

Compiled functions call none of another file: numba's cache would not notice that one changed.

Shape shorthand: R initial regions, E pairs of neighbours; Dc and Dt bins.
"""

import heapq
from typing import NamedTuple

import numpy as np
from numba import njit

from pipeline.proposals.regions import COLOUR_BINS, DIRECTIONS, Regions

COLOUR, TEXTURE, SIZE, FILL = range(4)  # columns of the similarities


class Comparison(NamedTuple):
    """How regions are compared: `weights`, how often a pixel counts in colours and textures; the columns in `use`, bool [4].

    `pixels` are those of the image.
    """

    weights: tuple[int, int]
    use: np.ndarray
    pixels: int


def similarities(regions: Regions, pixels: int) -> np.ndarray:
    """Colour, texture, size and fill similarity of each pair of neighbours, float64 [E x 4], in an image of `pixels` pixels."""
    return _similarities(regions, Comparison(_weights(regions), np.ones(4, np.bool_), pixels))


def group(regions: Regions, similarity: np.ndarray, chosen: tuple[int, ...], pixels: int) -> np.ndarray:
    """The box of every region of the hierarchy, int32 [2 R - 1 x 4]: the initial ones, then the joined ones as they were made.

    `similarity` is that of the initial pairs (see `similarities`); `chosen` are the columns that count.
    """
    use = np.zeros(4, np.bool_)
    use[list(chosen)] = True
    sizes, boxes, colours, textures, pairs = regions
    # Those of joined regions are written over those of one of the two.
    colours, textures = (colours.copy() if use[COLOUR] else colours), (textures.copy() if use[TEXTURE] else textures)
    total = similarity[:, use].sum(axis=1)
    joining = Regions(sizes.copy(), boxes.copy(), colours, textures, pairs)
    joined = _group(joining, total, Comparison(_weights(regions), use, pixels))
    return np.concatenate([boxes, joined])


def _weights(regions: Regions) -> tuple[int, int]:
    """How often a pixel counts in the histograms of colour and of texture."""
    channels = regions.colours.shape[1] // COLOUR_BINS
    return channels, DIRECTIONS * channels


@njit(nogil=True, cache=True)
def _intersect(counts_a, counts_b, total_a, total_b):
    """The sum of the smaller fractions of two histograms, given as counts with their totals; rounded once."""
    a, b = np.int64(total_a), np.int64(total_b)
    shared = np.int64(0)
    for i in range(len(counts_a)):
        shared += min(np.int64(counts_a[i]) * b, np.int64(counts_b[i]) * a)
    return np.float64(shared) / (np.float64(a) * np.float64(b))


@njit(nogil=True, cache=True)
def _compare(a, b, regions, comparison):
    """The four similarities of the regions in rows `a` and `b`; 0 for those not in use."""
    sizes, boxes, colours, textures, _ = regions
    weights, use, pixels = comparison
    colour = texture = size = fill = 0.0
    both = sizes[a] + sizes[b]
    if use[0]:
        colour = _intersect(colours[a], colours[b], weights[0] * sizes[a], weights[0] * sizes[b])
    if use[1]:
        texture = _intersect(textures[a], textures[b], weights[1] * sizes[a], weights[1] * sizes[b])
    if use[2]:
        size = 1.0 - both / pixels
    if use[3]:
        width = max(boxes[a, 2], boxes[b, 2]) - min(boxes[a, 0], boxes[b, 0])
        height = max(boxes[a, 3], boxes[b, 3]) - min(boxes[a, 1], boxes[b, 1])
        fill = 1.0 - (np.int64(width) * np.int64(height) - both) / pixels
    return colour, texture, size, fill


@njit(nogil=True, cache=True)
def _similarities(regions, comparison):
    pairs = regions.pairs
    similarity = np.empty((len(pairs), 4), np.float64)
    for pair in range(len(pairs)):
        a, b = pairs[pair]
        parts = _compare(a, b, regions, comparison)
        for part in range(4):
            similarity[pair, part] = parts[part]
    return similarity


@njit(nogil=True, cache=True)
def _link(pairs, regions):
    """The neighbours of each region as linked lists: `target` and `after` of nodes, `first` and `last` node of regions."""
    target, after = np.empty(2 * len(pairs), np.int32), np.full(2 * len(pairs), -1, np.int32)
    first, last = np.full(regions, -1, np.int32), np.full(regions, -1, np.int32)
    for node in range(2 * len(pairs)):
        row = pairs[node // 2, node % 2]
        target[node] = pairs[node // 2, 1 - node % 2]
        if first[row] < 0:
            first[row] = node
        else:
            after[last[row]] = node
        last[row] = node
    return target, after, first, last


@njit(nogil=True, cache=True)
def _join(a, b, regions, use):
    """Adds the features of the region in row `b` to those in row `a`."""
    sizes, boxes, colours, textures, _ = regions
    sizes[a] += sizes[b]
    for side in range(2):
        boxes[a, side] = min(boxes[a, side], boxes[b, side])
        boxes[a, side + 2] = max(boxes[a, side + 2], boxes[b, side + 2])
    if use[0]:
        for i in range(colours.shape[1]):
            colours[a, i] += colours[b, i]
    if use[1]:
        for i in range(textures.shape[1]):
            textures[a, i] += textures[b, i]


@njit(nogil=True, cache=True)
def _group(initial, similarity, comparison):
    """The boxes of the joined regions, as they were made. Changes the features; `similarity` [E] is the sum."""
    sizes, boxes, _, _, pairs = initial
    regions = len(sizes)
    joined = np.empty((regions - 1, 4), np.int32)
    target, after, first, last = _link(pairs, regions)
    # A joined region takes the row of one of its two. `number` is a row's number in the hierarchy, -1 once joined to another;
    # `heir` the row that holds a row's region now; `row_of` the row of a number. Targets mean the heirs of the rows they name.
    number, heir = np.arange(regions), np.arange(regions)
    row_of = np.arange(2 * regions - 1)
    met = np.full(regions, -1)  # the last joined region of which a row was found to be a neighbour
    # Candidates, the most similar first, of equal ones the lowest numbers. Those of joined regions stay in and are skipped.
    heap = [(-similarity[pair], np.int64(pairs[pair, 0]), np.int64(pairs[pair, 1])) for pair in range(len(pairs))]
    heapq.heapify(heap)
    newest = regions
    while heap:
        _, a_number, b_number = heapq.heappop(heap)
        a, b = row_of[a_number], row_of[b_number]
        if number[a] != a_number or number[b] != b_number:
            continue
        _join(a, b, initial, comparison.use)
        for side in range(4):
            joined[newest - regions, side] = boxes[a, side]
        number[a], number[b], heir[b], row_of[newest] = newest, -1, a, a
        after[last[a]] = first[b]
        last[a] = last[b]
        node, before = first[a], np.int32(-1)
        while node >= 0:
            row = target[node]
            while heir[row] != row:
                heir[row] = heir[heir[row]]
                row = heir[row]
            if row == a or met[row] == newest:  # itself, or the same once more: out of the list
                if before < 0:
                    first[a] = after[node]
                else:
                    after[before] = after[node]
            else:
                met[row] = newest
                parts = _compare(a, row, initial, comparison)
                heapq.heappush(heap, (-(parts[0] + parts[1] + parts[2] + parts[3]), number[row], np.int64(newest)))
                before = node
            node = after[node]
        last[a] = before
        newest += 1
    return joined
