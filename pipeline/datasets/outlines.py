"""Outlines of objects as COCO's files have them (`segmentation`), and the masks that they draw.

An outline is one of three (cocodataset.org, "Data format"):

- polygons, [[x1, y1, x2, y2, ...], ...] in pixels: the object is what lies in any of them
- runs, {"size": [height, width], "counts": [...]}: lengths of runs of pixels outside and inside, in turn, column by column
- packed runs: the same with a text for `counts`, as COCO's tools write it

pycocotools draws polygons. It trusts its input, so that runs are unpacked and checked here first.

Shape shorthand: H, W height and width of the image.
"""

import hashlib
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from pycocotools import mask as coco_masks

from pipeline.datasets.label_names import BACKGROUND
from pipeline.datasets.masks import MASK_FOLDERS, VOID, write_mask
from pipeline.datasets.records import MaskFile
from pipeline.errors import PipelineError

MOST_OBJECTS = VOID - 1  # that an instance mask can number
LEAST_NUMBERS = 6  # of a polygon: three points
REACH = 10  # polygons may reach so many times the image's longer side: drawing takes memory for their length
# Packed runs: a digit of base 32 a character, with a mark that more digits follow; a negative number has bit 16 in the last one.
ZERO, DIGIT, MORE, SIGN, BITS, MOST_DIGITS = 48, 0x1F, 0x20, 0x10, 5, 7


def to_runs(outline, height: int, width: int) -> bytes:
    """The packed runs of an outline in an image of H x W pixels. Raises PipelineError that says what is wrong with it."""
    if isinstance(outline, Mapping):
        counts = _checked_counts(outline, height, width)
        return coco_masks.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    polygons = _checked_polygons(outline, REACH * max(height, width))
    return coco_masks.merge(coco_masks.frPyObjects(polygons, height, width))["counts"]


def box_runs(box: Sequence[float], height: int, width: int) -> bytes:
    """The packed runs of a box (x1, y1, x2, y2)."""
    x1, y1, x2, y2 = map(float, box)
    return to_runs([[x1, y1, x2, y1, x2, y2, x1, y2]], height, width)


def from_runs(runs: bytes, height: int, width: int) -> np.ndarray:
    """The pixels of an object, bool [H x W], of the packed runs that `to_runs` made."""
    return coco_masks.decode({"size": [height, width], "counts": runs}).astype(bool)


def packed(outline):
    """The polygons of an outline as arrays, in a fifth of the memory; anything else as it is."""
    if isinstance(outline, list) and all(isinstance(part, list) and all(map(_is_number, part)) for part in outline):
        return [array("d", part) for part in outline]
    return outline


def _is_number(value) -> bool:
    return type(value) is float or (type(value) is int and abs(value) <= 2**53)


def _checked_polygons(outline, reach: float) -> list[list[float]]:
    if not isinstance(outline, list) or not outline:
        raise PipelineError("has no outline")
    polygons = [outline] if all(map(_is_number, outline)) else outline  # some tools leave out the outer list
    for polygon in polygons:
        if not isinstance(polygon, (list, array)) or len(polygon) < LEAST_NUMBERS or len(polygon) % 2:
            size = f"of {len(polygon)} numbers" if isinstance(polygon, (list, array)) else "that is no list"
            raise PipelineError(f"has a polygon {size}")
        if not all(_is_number(value) and math.isfinite(value) and abs(value) <= reach for value in polygon):
            raise PipelineError("has a polygon with a coordinate that is no number, or is far outside the image")
    return [list(map(float, polygon)) for polygon in polygons]


def _checked_counts(outline: Mapping, height: int, width: int) -> list[int]:
    size, counts = outline.get("size"), outline.get("counts")
    if size != [height, width]:
        raise PipelineError(f"has runs of the size {size} (height, width), its image is {width} x {height}")
    if isinstance(counts, str):
        counts = _unpacked(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise PipelineError("has runs that are no list of lengths")
    if sum(counts) != height * width:
        raise PipelineError(f"has runs of {sum(counts):,} pixels, its image has {height * width:,}")
    return counts


def _unpacked(text: str) -> list[int] | None:
    """The lengths of packed runs; None where the text is none.

    From the fourth on, what is written is the difference from the last length but one.
    """
    lengths: list[int] = []
    value = digits = 0
    for character in text:
        code = ord(character) - ZERO
        if not 0 <= code <= MORE + DIGIT or digits == MOST_DIGITS:
            return None
        value |= (code & DIGIT) << (BITS * digits)
        digits += 1
        if not code & MORE:
            if code & SIGN:
                value -= 1 << (BITS * digits)
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = digits = 0
    return None if digits else lengths


@dataclass(frozen=True, slots=True)
class Outline:
    """An object's packed runs, the name of its class, and its number in the image from 1 on.

    Without a name it is a region of which nothing is known: void.
    """

    runs: bytes
    name: str | None = None
    number: int = 0


def draw(outlines: Sequence[Outline], labels: Mapping[str, int], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The class mask and the instance mask, uint8 [H x W], of the objects of an image; `labels` are the classes' labels.

    An instance mask cannot number more than MOST_OBJECTS objects.

    NOTE: COCO does not say which of two objects is in front. Where objects of different classes overlap, the class is void, as in
    torchvision's training scripts (which also leave out the overlaps of one class); where any overlap, the instance is.
    """
    classes, instances = np.full((2, height, width), BACKGROUND, np.uint8)
    unknown = np.zeros((height, width), bool)
    for outline in outlines:
        window = _window(outline.runs, height, width)  # most objects are small
        inside = from_runs(outline.runs, height, width)[window]
        if outline.name is None:
            unknown[window] |= inside
            continue
        label, of_classes = labels[outline.name], classes[window]
        _paint(of_classes, inside, label, inside & (of_classes != label))
        _paint(instances[window], inside, min(outline.number, VOID), inside)
    for mask in (classes, instances):
        mask[unknown & (mask == BACKGROUND)] = VOID
    return classes, instances


def _window(runs: bytes, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns that an object's pixels lie in."""
    x, y, across, down = coco_masks.toBbox({"size": [height, width], "counts": runs}).astype(int).tolist()
    return slice(y, y + down), slice(x, x + across)


def _paint(mask: np.ndarray, inside: np.ndarray, value: int, clashing: np.ndarray) -> None:
    """Gives the pixels `inside` a value, in place; those that have another one become void where they are `clashing`."""
    free = mask == BACKGROUND
    mask[clashing & ~free] = VOID
    mask[inside & free] = value


def write_masks(folder: Path, id: str, masks: Mapping[str, np.ndarray]) -> dict[str, MaskFile]:
    """Writes `masks` of the image `id`, by the field of its record, below `folder`; returns their files by the same names."""
    files = {}
    for field, mask in masks.items():
        name = f"{MASK_FOLDERS[field]}/{quote(id, safe=' ')}.png"  # an id may be any text
        write_mask(folder / name, mask)
        files[field] = MaskFile(name, hashlib.sha256((folder / name).read_bytes()).hexdigest())
    return files
