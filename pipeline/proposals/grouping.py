"""Hierarchical grouping (Uijlings et al. 2013, algorithm 1): join the two most similar neighbours until one region is left.

The similarity of two regions is a sum of some of four, each in 0 to 1 (section 3.2): colour and texture, the intersection of the
histograms; size, which has small regions join early; fill, which has regions join that fit into each other.

Histograms are intersected in whole numbers, so that no result hangs on the order of a sum. Pairs of equal similarity are joined
in the order of their regions' numbers.

Compiled functions call none of another file: numba's cache would not notice that one changed.

Shape shorthand: R initial regions, E pairs of neighbours; Dc and Dt bins.
"""

import numpy as np
from numba import njit

from pipeline.proposals.regions import COLOUR_BINS, DIRECTIONS, Regions

COLOUR, TEXTURE, SIZE, FILL = range(4)  # columns of the similarities


def similarities(regions: Regions, pixels: int) -> np.ndarray:
    """Colour, texture, size and fill similarity of each pair of neighbours, float64 [E x 4], in an image of so many pixels."""
    return _similarities(*regions, *_totals(regions), pixels)


def group(regions: Regions, similarity: np.ndarray, chosen: tuple[int, ...], pixels: int) -> np.ndarray:
    """The box of every region of the hierarchy, int32 [2 R - 1 x 4]: the initial ones, then the joined ones as they were made.

    `similarity` is that of the initial pairs (see `similarities`); `chosen` are the columns that count.
    """
    use = np.zeros(4, np.bool_)
    use[list(chosen)] = True
    return _group(*regions, *_totals(regions), similarity, use, pixels)


def _totals(regions: Regions) -> tuple[int, int]:
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
def _joint_area(boxes, a, b):
    """Area of the box around both."""
    return np.int64(max(boxes[a, 2], boxes[b, 2]) - min(boxes[a, 0], boxes[b, 0])) * np.int64(
        max(boxes[a, 3], boxes[b, 3]) - min(boxes[a, 1], boxes[b, 1])
    )


@njit(nogil=True, cache=True)
def _similarities(sizes, boxes, colours, textures, pairs, of_colours, of_textures, pixels):
    found = np.empty((len(pairs), 4), np.float64)
    for pair in range(len(pairs)):
        a, b = pairs[pair]
        found[pair, 0] = _intersect(colours[a], colours[b], of_colours * sizes[a], of_colours * sizes[b])
        found[pair, 1] = _intersect(textures[a], textures[b], of_textures * sizes[a], of_textures * sizes[b])
        both = sizes[a] + sizes[b]
        found[pair, 2] = 1.0 - both / pixels
        found[pair, 3] = 1.0 - (_joint_area(boxes, a, b) - both) / pixels
    return found


@njit(nogil=True, cache=True)
def _before(values, ids, first, second):
    return values[first] > values[second] or (values[first] == values[second] and ids[first] < ids[second])


@njit(nogil=True, cache=True)
def _push(values, ids, count, value, number):
    place = count
    while place > 0:
        above = (place - 1) >> 1
        if values[above] > value or (values[above] == value and ids[above] < number):
            break
        values[place], ids[place] = values[above], ids[above]
        place = above
    values[place], ids[place] = value, number


@njit(nogil=True, cache=True)
def _pop(values, ids, count):
    """Drops the first of `count`."""
    count -= 1
    value, number = values[count], ids[count]
    place = 0
    while True:
        below = 2 * place + 1
        if below >= count:
            break
        if below + 1 < count and _before(values, ids, below + 1, below):
            below += 1
        if value > values[below] or (value == values[below] and number < ids[below]):
            break
        values[place], ids[place] = values[below], ids[below]
        place = below
    values[place], ids[place] = value, number


@njit(nogil=True, cache=True)
def _group(sizes, boxes, colours, textures, pairs, of_colours, of_textures, initial, use, pixels):
    regions, edges = len(sizes), len(pairs)
    sizes = sizes.copy()
    if use[0]:
        colours = colours.copy()
    if use[1]:
        textures = textures.copy()
    hierarchy = np.empty((2 * regions - 1, 4), np.int32)
    hierarchy[:regions] = boxes
    boxes = boxes.copy()

    # A joined region lives on in the row of one of its two; `number` is its own in the hierarchy, -1 for a row that is no more.
    number = np.arange(regions)
    heir = np.arange(regions)  # the row in which a row's region lives on
    # Neighbours of each row: a linked list of rows, each of whose heirs is meant.
    target = np.empty(2 * edges, np.int32)
    after = np.full(2 * edges, -1, np.int32)
    first = np.full(regions, -1, np.int32)
    last = np.full(regions, -1, np.int32)
    values = np.empty(4 * edges + 16, np.float64)
    ids = np.empty(4 * edges + 16, np.int64)
    count = 0
    for pair in range(edges):
        for side in range(2):
            node = 2 * pair + side
            row = pairs[pair, side]
            target[node] = pairs[pair, 1 - side]
            if first[row] < 0:
                first[row] = node
            else:
                after[last[row]] = node
            last[row] = node
        value = 0.0
        for part in range(4):
            if use[part]:
                value += initial[pair, part]
        _push(values, ids, count, value, (np.int64(pairs[pair, 0]) << 32) | pairs[pair, 1])
        count += 1
    row_of = np.empty(2 * regions - 1, np.int32)
    row_of[:regions] = np.arange(regions)
    seen = np.full(regions, -1, np.int32)
    made = regions
    while count > 0:
        a_id, b_id = np.int32(ids[0] >> 32), np.int32(ids[0] & 0xFFFFFFFF)
        _pop(values, ids, count)
        count -= 1
        a, b = row_of[a_id], row_of[b_id]
        if number[a] != a_id or number[b] != b_id:
            continue
        number[a] = made
        number[b] = -1
        heir[b] = a
        row_of[made] = a
        sizes[a] += sizes[b]
        boxes[a, 0] = min(boxes[a, 0], boxes[b, 0])
        boxes[a, 1] = min(boxes[a, 1], boxes[b, 1])
        boxes[a, 2] = max(boxes[a, 2], boxes[b, 2])
        boxes[a, 3] = max(boxes[a, 3], boxes[b, 3])
        hierarchy[made] = boxes[a]
        if use[0]:
            for i in range(colours.shape[1]):
                colours[a, i] += colours[b, i]
        if use[1]:
            for i in range(textures.shape[1]):
                textures[a, i] += textures[b, i]
        after[last[a]] = first[b]
        last[a] = last[b]
        node, before = first[a], np.int32(-1)
        while node >= 0:
            row = target[node]
            while heir[row] != row:
                heir[row] = heir[heir[row]]
                row = heir[row]
            if row == a or seen[row] == made:
                # itself, or once more the same: left out of the list, whose first stays valid
                after_it = after[node]
                if before < 0:
                    first[a] = after_it
                else:
                    after[before] = after_it
                if last[a] == node:
                    last[a] = before
                node = after_it
                continue
            seen[row] = made
            target[node] = row
            value = 0.0
            if use[0]:
                value += _intersect(colours[a], colours[row], of_colours * sizes[a], of_colours * sizes[row])
            if use[1]:
                value += _intersect(textures[a], textures[row], of_textures * sizes[a], of_textures * sizes[row])
            both = sizes[a] + sizes[row]
            if use[2]:
                value += 1.0 - both / pixels
            if use[3]:
                value += 1.0 - (_joint_area(boxes, a, row) - both) / pixels
            if count == len(values):
                more_values, more_ids = np.empty(2 * count, np.float64), np.empty(2 * count, np.int64)
                more_values[:count], more_ids[:count] = values, ids
                values, ids = more_values, more_ids
            _push(values, ids, count, value, (np.int64(number[row]) << 32) | made)
            count += 1
            before, node = node, after[node]
        made += 1
    return hierarchy[:made]
