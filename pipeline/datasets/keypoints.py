"""Keypoints of objects: their names, and the file `keypoints.json` of a folder in VOC's layout.

    {"names": ["left_eye", ...],             k names
     "skeleton": [[0, 1], ...],              pairs of numbers of keypoints, joined by a limb
     "flip_pairs": [[0, 1], ...],            left and right of the same joint, which change places in a mirrored image
     "objects": [{"image": "2007_000676",    the id in ImageSets/Main
                  "object": 0,               its place among the <object> of the XML, from 0
                  "keypoints": [[115, 154, 1], [0, 0, 0], ...]}, ...]}    x, y, labelled; k of them

x and y are pixels of the image, 0-based, whatever the corners of the boxes count from. A third number of 0 says that the keypoint
is not labelled; its place is not read. One file serves all splits. It need not name every object.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets.faults import Faults
from pipeline.errors import PipelineError
from pipeline.files.reading import parse_json
from pipeline.text import shown

FILE = "keypoints.json"
LEFT, RIGHT = "left", "right"
EDGE = 1.0  # pixels by which a keypoint may lie outside its image: those of an edge are rounded
CORRECT = "correct it"


@dataclass(frozen=True)
class Skeleton:
    """The k keypoints of a split by name; `limbs` and `flip_pairs` are pairs of their numbers."""

    names: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()

    @property
    def mirrored(self) -> np.ndarray:
        """For each keypoint the number of the one that takes its place in a mirrored image: int64 [k]."""
        order = np.arange(len(self.names))
        for first, second in self.flip_pairs:
            order[[first, second]] = second, first
        return order

    def to_json(self) -> dict:
        return {
            "names": list(self.names), "skeleton": [list(limb) for limb in self.limbs],
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
        }

    @classmethod
    def from_json(cls, data: dict) -> "Skeleton":
        limbs, pairs = (tuple((first, second) for first, second in data[name]) for name in ("skeleton", "flip_pairs"))
        return cls(tuple(data["names"]), limbs, pairs)


def pairs_by_name(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The pairs whose names differ by left and right alone. COCO's files do not list them."""
    number = {name: place for place, name in enumerate(names)}
    pairs = ((place, number.get(name.replace(LEFT, RIGHT))) for name, place in number.items() if LEFT in name)
    return tuple((left, right) for left, right in pairs if right is not None)


def category_skeleton(path: Path, id, category: dict) -> Skeleton:
    """The keypoints of one of COCO's categories; its skeleton counts from 1. Raises PipelineError, naming `path`, for others."""
    names, where = category["keypoints"], f"{path}: category {id}"
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise PipelineError(f"{where} has the keypoints {shown(names)}; expected a list of different words")
    limbs = check_pairs(where, "its skeleton", category.get("skeleton", []), len(names), first=1)
    return Skeleton(tuple(names), limbs, pairs_by_name(names))


class KeypointFile:
    """The content of a `keypoints.json`: its `skeleton`, and the keypoints of each object.

    What is wrong with the file goes to `faults`; objects of the file that nobody asks for are those of other splits.
    """

    def __init__(self, path: Path, content: bytes, faults: Faults):
        self.path, self.faults = path, faults
        document = parse_json(path, content, "correct the file")
        if not isinstance(document, dict) or not isinstance(document.get("objects"), list):
            raise PipelineError(f"{path}: has no list of objects; expected names, skeleton, flip_pairs and objects")
        self.skeleton = _skeleton_of(path, document)
        self._objects: dict[tuple[str, int], np.ndarray] = {}
        for number, entry in enumerate(document["objects"]):
            self._add(f"{path}: objects: entry {number}", entry)

    def _add(self, where: str, entry) -> None:
        image, place, values = (entry.get(name) if isinstance(entry, dict) else None for name in ("image", "object", "keypoints"))
        if not isinstance(image, str) or not isinstance(place, int) or isinstance(place, bool):
            message = f"{where} has the image {shown(image)} and the object {shown(place)}"
            self.faults.error("keypoints of no object", message, "expected an id of an image and a place in its XML")
        elif (image, place) in self._objects:
            self.faults.error("keypoints given twice", f"{where}: image {image}, object {place} came before", "remove one")
        elif (keypoints := parse_keypoints(values, len(self.skeleton.names))) is None:
            message = f"{where} (image {image}, object {place}) has the keypoints {shown(values)}"
            self.faults.error("keypoints of another form", message, f"expected {len(self.skeleton.names)} of x, y, labelled")
        else:
            self._objects[image, place] = keypoints

    def of(self, image: str, place: int) -> np.ndarray | None:
        """The keypoints [k x 3] of an object; None where the file has none."""
        return self._objects.get((image, place))

    def check_places(self, counts: Mapping[str, int]) -> None:
        """Tells of objects that an image does not have; `counts` are the numbers of objects of the split's images."""
        for image, place in self._objects:
            if image in counts and not 0 <= place < counts[image]:
                message = f"{self.path}: image {image} has {counts[image]} object(s), and no object {place}"
                self.faults.error("keypoints of no object", message, CORRECT)


def parse_keypoints(values, count: int) -> np.ndarray | None:
    """Keypoints float32 [count x 3] from a list of (x, y, labelled); None unless `values` are as many finite numbers."""
    try:
        keypoints = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if keypoints.shape != (count, 3) or not np.isfinite(keypoints).all() or (np.abs(keypoints) > 1e9).any():
        return None
    keypoints[keypoints[:, 2] <= 0] = 0
    return keypoints.astype(np.float32)


def inside(keypoints: np.ndarray, width: float, height: float) -> np.ndarray:
    """Which of `keypoints` [... x 3] are not labelled or lie in the image."""
    x, y, labelled = np.moveaxis(keypoints, -1, 0)
    return (labelled == 0) | ((x >= -EDGE) & (x <= width + EDGE) & (y >= -EDGE) & (y <= height + EDGE))


def _is_number(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _skeleton_of(path: Path, document: dict) -> Skeleton:
    names = document.get("names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise PipelineError(f"{path}: has the names {shown(names)}; expected a list of words")
    if len(set(names)) < len(names):
        raise PipelineError(f"{path}: names a keypoint twice; make the names differ")
    pairs = {name: check_pairs(path, name, document.get(name, []), len(names)) for name in ("skeleton", "flip_pairs")}
    flipped = [place for pair in pairs["flip_pairs"] for place in pair]
    if len(set(flipped)) < len(flipped):
        raise PipelineError(f"{path}: flip_pairs name a keypoint twice; each changes places with one other")
    return Skeleton(tuple(names), pairs["skeleton"], pairs["flip_pairs"])


def check_pairs(path: Path | str, name: str, pairs, count: int, first: int = 0) -> tuple[tuple[int, int], ...]:
    """Pairs of numbers of `count` keypoints, which count from `first`. Raises PipelineError for anything else."""
    places = range(first, first + count)
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        if not isinstance(pair, list) or len(pair) != 2 or not all(_is_number(p) and p in places for p in pair):
            advice = f"expected pairs of numbers from {first} to {first + count - 1}"
            raise PipelineError(f"{path}: {name} has {shown(pair)}; {advice}")
    return tuple((pair[0] - first, pair[1] - first) for pair in pairs)
