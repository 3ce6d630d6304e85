"""The JSON document of COCO's instances files, parsed in little memory."""

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from pipeline.datasets.coco_names import to_id
from pipeline.datasets.outlines import packed
from pipeline.errors import PipelineError
from pipeline.files.reading import parse_json
from pipeline.text import flat

TABLES = ("images", "categories", "annotations")
IDS = ("id", "image_id", "category_id")
MARKS = ("iscrowd", "ignore", "difficult")  # 1: a crowd, a region to ignore, an object that VOC would call difficult
NUMBERS = (*IDS, *MARKS)  # of an annotation
# What is read of an entry. The rest, above all outlines, is most of the file and would take most of the memory.
NAMES = {*TABLES, "file_name"}
KEPT = {*TABLES, *NUMBERS, "bbox", "file_name", "width", "height", "name", "keypoints", "skeleton"}

VOID = "void"  # ours, of an image: the outline of the pixels that belong to no class
OF_OUTLINES = {"segmentation", "counts", "size", VOID}


class Row(int):
    """Stands for an annotation that `Annotations` holds in this row."""


class Annotations:
    """The annotations of a file while it is parsed, in columns: a fifth of the memory of a dictionary each.

    Only annotations whose values have the usual types; the others stay dictionaries, for messages to quote. `outlines` says
    whether outlines are kept.
    """

    def __init__(self, outlines: bool = False):
        self._kept = KEPT | OF_OUTLINES if outlines else KEPT
        self._outlines: dict[int, object] = {}  # of the rows that have any
        self._numbers, self._sides = array("q"), array("d")
        self._keypoints: dict[int, array] = {}  # of the rows that have any

    def take(self, entry: dict) -> dict | Row:
        """What to keep of a JSON object: the columns that are read, or the row that holds them."""
        entry = {name: value for name, value in entry.items() if name in self._kept}
        if "segmentation" in entry:
            entry["segmentation"] = packed(entry["segmentation"])
        numbers: list = [*(_plain(entry.get(name)) for name in IDS), *(entry.get(name, 0) for name in MARKS)]
        sides = entry.get("bbox")
        if not isinstance(sides, list) or len(sides) != 4 or "file_name" in entry:
            return entry
        if not (all(map(_is_exact, [*numbers, *sides])) and all(type(number) is int for number in numbers)):
            return entry
        if (keypoints := entry.get("keypoints")) is not None:
            if not isinstance(keypoints, list) or not all(map(_is_exact, keypoints)):
                return entry
            self._keypoints[len(self._sides) // 4] = array("d", keypoints)
        if "segmentation" in entry:
            self._outlines[len(self._sides) // 4] = entry["segmentation"]
        self._numbers.extend(numbers)
        self._sides.extend(sides)
        return Row(len(self._numbers) // len(NUMBERS) - 1)

    def differ(self, listed: Iterable) -> bool:
        """Whether the entries of a list are known to have different ids: all are rows, no two of them with the same id."""
        ids = self._numbers[::len(NUMBERS)]
        return all(isinstance(entry, Row) for entry in listed) and len(np.unique(np.array(ids))) == len(ids)

    def entries(self, listed: Iterable) -> Iterator:
        """The entries of a list; rows become dictionaries again."""
        return (self._entry(entry) if isinstance(entry, Row) else entry for entry in listed)

    def _entry(self, row: Row) -> dict:
        numbers = self._numbers[len(NUMBERS) * row:len(NUMBERS) * (row + 1)]
        sides = [int(side) if side.is_integer() else side for side in self._sides[4 * row:4 * row + 4]]
        keypoints = {"keypoints": self._keypoints[row].tolist()} if row in self._keypoints else {}
        outline = {"segmentation": self._outlines[row]} if row in self._outlines else {}
        return {**dict(zip(NUMBERS, numbers, strict=True)), "bbox": sides, **keypoints, **outline}


def _plain(value):
    """A whole number for an id that is written as 3.0 or "3"."""
    return value if type(value) is int or not isinstance(number := to_id(value), int) else number


def _is_exact(value) -> bool:
    """Whether `value` is a number that a column holds without loss."""
    return type(value) is float or (type(value) is int and abs(value) <= 2**53)


def only_names(entry: dict) -> dict | None:
    """What to keep of a JSON object where only the names of the images are needed."""
    return {name: value for name, value in entry.items() if name in NAMES} or None


def parse(path: Path, content: bytes, keep: Callable[[dict], dict | Row | None]) -> dict[str, list]:
    """The lists of an instances file; `keep` selects what is kept of its JSON objects. PipelineError for any other file."""
    try:
        text = content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not readable as JSON ({flat(error)}); correct the file") from error
    del content  # as large as the text, and the entries come to them
    # A coordinate that is not a number makes one object faulty, not the file.
    document = parse_json(path, text, "correct the file", constants=True, object_hook=keep)
    missing = [table for table in TABLES if not isinstance(document, dict) or not isinstance(document.get(table), list)]
    if missing:
        raise PipelineError(f"{path}: has no list of {', '.join(missing)}; expected COCO's lists {', '.join(TABLES)}")
    return document
