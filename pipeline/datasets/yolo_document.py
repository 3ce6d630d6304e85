"""The files of YOLO's layout that name classes and splits: `data.yaml`, Darknet's `obj.data` and `obj.names`, `classes.txt`.

    path: .                                  optional: the folder that the other paths begin at
    train: images/train                      a folder of images, a list of images (.txt), or a list of these
    val: [images/val, more.txt]
    names: {0: cat, 1: dog}                  or a list
    nc: 2                                    optional: the number of names
    kpt_shape: [17, 3]                       only where objects have keypoints: their number, and values for each
    flip_idx: [0, 2, 1, ...]                 for each keypoint, the one that takes its place in a mirrored image
    kpt_names: {0: [nose, left_eye, ...]}    the names of the keypoints, for each class

Ultralytics' documentation describes `data.yaml`, and CVAT's and Darknet's `obj.data`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.keypoints import Skeleton
from pipeline.errors import PipelineError
from pipeline.text import flat, shown

LARGEST = 1 << 20  # bytes of a file that names classes
CORRECT = "correct the file"
SPLITS = ("train", "val", "valid", "validation", "test", "minival")
# Keys of `data.yaml` that are no splits, whatever they hold.
OTHER_KEYS = ("path", "names", "nc", "download", "kpt_shape", "kpt_names", "flip_idx")
MARK = re.compile(rb"(?m)^\s*[\"']?(names|nc)[\"']?\s*:")  # what shows that a YAML file is YOLO's


@dataclass(frozen=True)
class Pose:
    """The keypoints of the objects: their names, and how many values each has: 2 (x, y) or 3 (x, y, visible)."""

    skeleton: Skeleton
    values: int


@dataclass(frozen=True)
class Document:
    """`names` are the classes by their numbers; `splits` are paths as they are written, below the folder `base`."""

    names: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]]
    base: str = "."
    pose: Pose | None = None


def parse_text(path: Path | str, content: bytes) -> str:
    """The text of a file. Raises PipelineError, naming `path`, for one that is no UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not UTF-8 text ({flat(error)}); save it as UTF-8") from error


def parse_yaml(path: Path | str, content: bytes) -> dict:
    """The mapping in a YAML file. Raises PipelineError, naming `path`, for anything else. No code in it is run."""
    import yaml  # not above: most data sets need none

    if len(content) > LARGEST:
        raise PipelineError(f"{path}: has {len(content):,} bytes, at most {LARGEST:,} are read; {CORRECT}")
    # Merged keys of merged keys take memory without bound.
    if b"<<" in content:
        raise PipelineError(f"{path}: has YAML's <<, which is not read; write out what it stands for")
    try:
        document = yaml.safe_load(parse_text(path, content))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, PipelineError):
            raise
        raise PipelineError(f"{path}: not readable as YAML ({flat(error)}); {CORRECT}") from error
    if not isinstance(document, dict):
        raise PipelineError(f"{path}: holds {shown(document)}; expected keys such as names and train")
    return document


def splits_of(path: Path | str, document: dict) -> tuple[str, dict[str, tuple[str, ...]]]:
    """The folder `path` and the splits of a YAML document, as written. Raises PipelineError for anything but paths.

    Ultralytics knows train, val and test. Any other key is a split if it gives lists of images.
    """
    base = document.get("path")
    if base is not None and not isinstance(base, str):
        raise PipelineError(f"{path}: path is {shown(base)}; expected the name of a folder")
    splits: dict[str, tuple[str, ...]] = {}
    for key, value in document.items():
        values = value if isinstance(value, list) else [value]
        is_text = bool(values) and all(isinstance(text, str) and text.strip() for text in values)
        if key in SPLITS and value not in (None, ""):
            if not is_text:
                raise PipelineError(f"{path}: {key} is {shown(value)}; expected a folder of images, a list of images, or several")
            splits[key] = tuple(values)
        elif is_text and key not in (*OTHER_KEYS, *SPLITS) and all(text.endswith(".txt") for text in values):
            splits[str(key)] = tuple(values)
    return base or ".", splits


def names_of(path: Path | str, document: dict) -> tuple[str, ...]:
    """The class names of a YAML document, by their numbers. Raises PipelineError, naming `path`."""
    names, count = document.get("names"), document.get("nc")
    if count is not None and (type(count) is not int or count < 0):
        raise PipelineError(f"{path}: nc is {shown(count)}; expected the number of classes")
    if names is None and count is not None:
        return tuple(f"class_{number}" for number in range(count))  # as Ultralytics does
    if isinstance(names, dict):
        names = _in_order(path, names)
    if not isinstance(names, list) or not names:
        raise PipelineError(f"{path}: names is {shown(names)}; expected a list of class names, or each number with its name")
    for number, name in enumerate(names):
        # YAML makes numbers, dates and yes or no of some words.
        if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
            raise PipelineError(f"{path}: class {number} has the name {shown(name)}; write a word, in quotes")
    if count not in (None, len(names)):
        raise PipelineError(f"{path}: nc is {count}, and names has {len(names)}; {CORRECT}")
    return tuple(str(name).strip() for name in names)


def _in_order(path: Path | str, names: dict) -> list:
    """The values of a mapping from the numbers 0, 1, ... to names."""
    by_number = {int(key) if isinstance(key, str) and key.isdecimal() else key: name for key, name in names.items()}
    try:
        return [by_number[number] for number in range(len(names))]
    except KeyError as error:
        advice = f"expected the numbers from 0 to {len(names) - 1}"
        raise PipelineError(f"{path}: names has no class {error}; {advice}") from error


def pose_of(path: Path | str, document: dict) -> Pose | None:
    """The keypoints that a YAML document declares; None where it declares none. Raises PipelineError, naming `path`."""
    shape = document.get("kpt_shape")
    if shape is None:
        return None
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(side) is int for side in shape) or shape[0] < 1 or (
            shape[1] not in (2, 3)):
        raise PipelineError(f"{path}: kpt_shape is {shown(shape)}; expected the number of keypoints, and 2 or 3")
    count, flipped = shape[0], document.get("flip_idx", list(range(shape[0])))
    is_pairs = isinstance(flipped, list) and len(flipped) == count and all(
        type(partner) is int and 0 <= partner < count and flipped[partner] == number for number, partner in enumerate(flipped))
    if not is_pairs:
        advice = f"expected {count} numbers of keypoints that change places in pairs"
        raise PipelineError(f"{path}: flip_idx is {shown(flipped)}; {advice}")
    pairs = tuple((number, partner) for number, partner in enumerate(flipped) if number < partner)
    return Pose(Skeleton(_keypoint_names(path, document.get("kpt_names"), count), (), pairs), shape[1])


def _keypoint_names(path: Path | str, names, count: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"keypoint_{number}" for number in range(1, count + 1))
    lists = list(names.values()) if isinstance(names, dict) else [names]
    first = lists[0] if lists and isinstance(lists[0], list) else []
    is_good = len(first) == count and all(isinstance(name, str) and name for name in first) and len(set(first)) == count
    if not is_good or any(words != first for words in lists):
        raise PipelineError(f"{path}: kpt_names is {shown(names)}; expected the same {count} different words for each class")
    return tuple(first)


def read_document(path: Path | str, content: bytes) -> Document:
    """What a YAML file says. Raises PipelineError, naming `path`."""
    document = parse_yaml(path, content)
    base, splits = splits_of(path, document)
    return Document(names_of(path, document), splits, base, pose_of(path, document))


def parse_darknet(path: Path | str, content: bytes) -> dict[str, str]:
    """The values of Darknet's `obj.data`, whose lines are `key = value`."""
    pairs = (line.partition("=") for line in parse_text(path, content).splitlines() if not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs if value.strip()}


def parse_names(path: Path | str, content: bytes) -> tuple[str, ...]:
    """The class names of a file with one name a line. Raises PipelineError, naming `path`, for an empty line between names."""
    names = [line.strip() for line in parse_text(path, content).rstrip().splitlines()]
    if not names or not all(names):
        where = f"line {names.index('') + 1} is empty" if names else "it is empty"
        raise PipelineError(f"{path}: {where}; expected one class name a line, the first for number 0")
    return tuple(names)
