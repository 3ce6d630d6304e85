"""Images that are equal, or nearly: the same photograph in another size, in another quality of JPEG, a little brighter.

Equal files have the same SHA-256. Near duplicates are found by a difference hash (dHash, N. Krawetz, "Kind of Like That", 2013):
the image in 9 x 8 grey pixels; each of the 64 bits says whether a pixel is darker than the one to its right. Two images are near
duplicates when at most `MOST_BITS` of their bits differ.

Mirrored, turned and strongly cropped copies are not found. Images of one even colour, which have no such bits, are left out.

Two hashes that differ in at most t bits are equal in one of t + 1 bands of bits. So only hashes with an equal band are compared.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets.records import ImageRecord
from pipeline.files.reading import MAX_MEGAPIXELS, read_regular
from pipeline.images.reading import BROKEN, open_image, turned

BITS = 64
# Ours. Of 700 and of 449 photographs of VOC no two differ in fewer than 9 and 12 bits. Copies of half the size, of JPEG quality
# 30 or as PNG differ in at most 6. So do 97 of 100 that are brighter or have more contrast (docs/convert-and-describe.md).
MOST_BITS = 6
ROWS, COLUMNS = 8, 8


def difference_hash(image: Image.Image) -> int:
    """The 64 bits of an image, as a whole number."""
    grey = np.asarray(image.convert("L").resize((COLUMNS + 1, ROWS), Image.Resampling.BOX), np.int16)
    return int.from_bytes(np.packbits(grey[:, :-1] < grey[:, 1:]).tobytes(), "big")


def hash_of(root: Path, record: ImageRecord, max_megapixels: float = MAX_MEGAPIXELS) -> int:
    """The hash of a data set's image, its pixels turned as the record says.

    A JPEG is decoded in a smaller size, which is quicker.
    """
    path = root / record.path
    image = open_image(path, read_regular(path, "run again"), max_megapixels)
    try:
        image.draft("L", (8 * COLUMNS, 8 * ROWS))
        return difference_hash(turned(image, record.orientation))
    except BROKEN:  # it was decoded before: a file that changed since then
        return 0


def near_pairs(hashes: Sequence[int], most_bits: int = MOST_BITS) -> list[tuple[int, int]]:
    """The pairs of numbers of hashes that differ in at most `most_bits`; a hash of 0 is in none."""
    places: dict[int, list[int]] = {}
    for number, value in enumerate(hashes):
        if value:
            places.setdefault(value, []).append(number)
    values = list(places)
    pairs = {(a, b) for same in places.values() for a, b in pairwise(same)}
    for first, second in _close(values, most_bits):
        pairs.add((places[values[first]][0], places[values[second]][0]))
    return sorted((min(pair), max(pair)) for pair in pairs)


def _close(values: Sequence[int], most_bits: int) -> Iterable[tuple[int, int]]:
    """The pairs of different values that differ in at most `most_bits`."""
    edges = np.linspace(0, BITS, most_bits + 2).astype(int)
    pairs = set()
    for low, high in zip(edges.tolist(), edges[1:].tolist()):
        bands: dict[int, list[int]] = {}
        for number, value in enumerate(values):
            bands.setdefault((value >> low) & ((1 << (high - low)) - 1), []).append(number)
        for numbers in (numbers for numbers in bands.values() if len(numbers) > 1):
            array = np.array([values[number] for number in numbers], np.uint64)
            for place in range(len(numbers) - 1):
                differing = _count_bits(array[place] ^ array[place + 1:])
                pairs |= {(numbers[place], numbers[place + 1 + offset]) for offset in np.flatnonzero(differing <= most_bits)}
    return pairs


def _count_bits(values: np.ndarray) -> np.ndarray:
    """How many bits of each of `values` uint64 [n] are 1: int [n]."""
    return np.unpackbits(values.view(np.uint8).reshape(len(values), 8), axis=1).sum(axis=1)


def groups(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The numbers below `count` in groups of two and more that the pairs join."""
    parent = list(range(count))

    def top(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for first, second in pairs:
        parent[max(top(first), top(second))] = min(top(first), top(second))
    members: dict[int, list[int]] = {}
    for number in range(count):
        members.setdefault(top(number), []).append(number)
    return [group for group in members.values() if len(group) > 1]


def equal_files(images: Sequence[ImageRecord]) -> list[list[int]]:
    """The numbers of images whose files are equal, in groups."""
    numbers: dict[str, list[int]] = {}
    for number, image in enumerate(images):
        numbers.setdefault(image.digest, []).append(number)
    return [group for group in numbers.values() if len(group) > 1]
