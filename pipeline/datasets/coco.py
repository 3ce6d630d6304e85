"""COCO's instances files, read strictly.

    <root>/annotations/instances_<split>.json    the images, categories and objects of a split
    <root>/<split>/<file_name>                   or <root>/images/<file_name>, <root>/<file_name>; the first of them that exists

A box is (x, y, width, height) in pixels from the image's upper left corner, 0-based and fractional (cocodataset.org, "Data
format"), so that ours is (x, y, x + width, y + height). Classes are the categories' names; their numbers do not matter. An
image's id is its number, as in COCO's result files.

Annotations with `iscrowd` or `ignore` are regions to ignore: a crowd's box holds many objects. Some converters write VOC's
`difficult`, too.
"""

import json
import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np

from pipeline.datasets.edges import ADVICE, Edges, Extent
from pipeline.datasets.faults import Faults, ObjectFaults
from pipeline.datasets.reading import CORRECT, Draft, Folder, Listing, Rules, check_size, is_plain_name, make_split
from pipeline.datasets.records import Split
from pipeline.errors import PipelineError
from pipeline.files.reading import parse_json, read_regular
from pipeline.text import flat, shown

ANNOTATIONS, PREFIX = "annotations", "instances_"
TABLES = ("images", "categories", "annotations")
MARKS = ("iscrowd", "ignore", "difficult")  # 1: a crowd, a region to ignore, an object that VOC would call difficult
NUMBERS = ("id", "image_id", "category_id", *MARKS)  # of an annotation
UNSAID = dict.fromkeys(MARKS, 0)
# What is read of an entry. The rest, above all outlines, is most of the file and would take most of the memory.
NAMES = {*TABLES, "file_name"}
KEPT = {*TABLES, *NUMBERS, "bbox", "file_name", "width", "height", "name"}
SIDES = ("x", "y", "width", "height")


def splits_of(root: Path) -> list[str]:
    """The names of the splits in the folder; none where it is not in COCO's layout."""
    return sorted(path.stem.removeprefix(PREFIX) for path in (Path(root) / ANNOTATIONS).glob(f"{PREFIX}*.json"))


def split_files(root: Path, split: str) -> list[str]:
    """Names below `root` of every file that defines a split: its instances file, then each image in that file's order.

    Never raises: where the file cannot be read, its name is the only one. Images need not exist.
    """
    name, files = _instances_name(split), Listing(root)
    path = Path(root, name)
    try:
        images = _parse(path, read_regular(path, ""), _only_names)["images"]
    except PipelineError:
        return [name]
    names = (image.get("file_name") for image in images if isinstance(image, dict))
    return [name, *(files.first(_image_names(split, image)) for image in names if _stays_inside(image))]


def read_split(root: Path, split: str, classes: Sequence[str] | None, digests: Mapping[str, str], **rules) -> Split:
    """The images and objects of the instances file of `split`, in its order; arguments and errors as `voc.read_split`."""
    folder = Folder(root, digests, classes, Rules(**rules))
    path, faults = folder.root / _instances_name(split), folder.faults
    if not is_plain_name(split) or not os.path.exists(path):
        existing = ", ".join(splits_of(root)) or "none"
        faults.error("files that are missing", f"{path}: no such file", f"the splits of this data set are: {existing}")
    else:
        with faults.collected("files that cannot be read"):
            _read_document(folder, split)
    return make_split(split, folder, path)


def _read_document(folder: Folder, split: str) -> None:
    path, rows, faults, edges = folder.root / _instances_name(split), _Annotations(), folder.faults, folder.edges()
    document = _parse(path, folder.read(_instances_name(split)), rows.take)
    images = _read_images(folder, split, _emptied(document["images"]))
    names = _read_categories(path, document["categories"], faults)
    listed = document["annotations"]
    for id, annotation in _with_ids(f"{path}: annotations", rows.entries(listed), faults, rows.differ(listed)):
        _read_object(f"{path}: annotation {id}", annotation, images=images, names=names, folder=folder, edges=edges)
    edges.tell()


def _instances_name(split: str) -> str:
    return f"{ANNOTATIONS}/{PREFIX}{split}.json"


def _image_names(split: str, name: str) -> list[str]:
    return [f"{split}/{name}", f"images/{name}", name]


def _stays_inside(name) -> TypeGuard[str]:
    """Whether `name` is a file name, perhaps with folders before it, that stays in the folder it is joined to."""
    return isinstance(name, str) and all(map(is_plain_name, name.split("/")))


def _is_whole(value) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


class _Row(int):
    """Stands for an annotation that `_Annotations` holds in this row."""


class _Annotations:
    """The annotations of a file while it is parsed, in columns: a fifth of the memory of a dictionary each.

    Only annotations whose values have the usual types; the others stay dictionaries, for messages to quote.
    """

    def __init__(self):
        self._numbers, self._sides = array("q"), array("d")

    def take(self, entry: dict) -> dict | _Row:
        """What to keep of a JSON object: the columns that are read, or the row that holds them."""
        entry = {name: value for name, value in entry.items() if name in KEPT}
        numbers: list = [entry.get(name, UNSAID.get(name)) for name in NUMBERS]
        sides = entry.get("bbox")
        if not isinstance(sides, list) or len(sides) != 4 or "file_name" in entry:
            return entry
        if not (all(map(_is_exact, [*numbers, *sides])) and all(map(_is_whole, numbers))):
            return entry
        self._numbers.extend(numbers)
        self._sides.extend(sides)
        return _Row(len(self._numbers) // len(NUMBERS) - 1)

    def differ(self, listed: Iterable) -> bool:
        """Whether the entries of a list are known to have different ids: all are rows, no two of them with the same id."""
        ids = self._numbers[::len(NUMBERS)]
        return all(isinstance(entry, _Row) for entry in listed) and len(np.unique(np.array(ids))) == len(ids)

    def entries(self, listed: Iterable) -> Iterator:
        """The entries of a list; rows become dictionaries again."""
        return (self._entry(entry) if isinstance(entry, _Row) else entry for entry in listed)

    def _entry(self, row: _Row) -> dict:
        numbers = self._numbers[len(NUMBERS) * row:len(NUMBERS) * (row + 1)]
        sides = [int(side) if side.is_integer() else side for side in self._sides[4 * row:4 * row + 4]]
        return {**dict(zip(NUMBERS, numbers, strict=True)), "bbox": sides}


def _is_exact(value) -> bool:
    """Whether `value` is a number that a column holds without loss."""
    return type(value) is float or (type(value) is int and abs(value) <= 2**53)


def _only_names(entry: dict) -> dict | None:
    """What to keep of a JSON object where only the names of the images are needed."""
    return {name: value for name, value in entry.items() if name in NAMES} or None


def _parse(path: Path, content: bytes, keep: Callable[[dict], dict | _Row | None]) -> dict[str, list]:
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


def _emptied(entries: list) -> Iterator:
    """The entries of a list, each removed from it when taken: what is made of them needs the memory."""
    entries.reverse()
    while entries:
        yield entries.pop()


def _with_ids(where: str, entries: Iterable, faults: Faults, differ: bool = False) -> Iterator[tuple[int, dict]]:
    """The entries of a list with their ids; missing and repeated ids go to `faults`.

    With `differ` the ids are known to be different: a set of them takes more memory than the columns.
    """
    seen = set()
    for number, entry in enumerate(entries, 1):
        id = entry.get("id") if isinstance(entry, dict) else None
        if not _is_whole(id):
            message = f"{where}: entry {number} has the id {shown(id)}"
            faults.error("entries without an id", message, "expected an object with a whole number")
        elif id in seen:
            faults.error("repeated ids", f"{where}: entry {number} has the id {id}, as an entry before it", "make them differ")
        else:
            if not differ:
                seen.add(id)
            yield id, entry


def _read_images(folder: Folder, split: str, entries: Iterable) -> dict[int, Draft]:
    drafts: dict[int, Draft] = {}
    seen: dict[str, int] = {}
    faults, root = folder.faults, folder.root
    path = root / _instances_name(split)
    missing = f"no such file (nor in {root / 'images'} or {root})"
    for id, entry in _with_ids(f"{path}: images", entries, faults):
        where, name = f"{path}: image {id}", entry.get("file_name")
        if not _stays_inside(name):
            message = f"{where} has the file_name {shown(name)}"
            faults.error("images without a file", message, "expected a file's name that stays in the folder")
        elif name in seen:
            faults.error("repeated images", f"{where} is {name}, as image {seen[name]}", "remove one of them")
        else:
            seen[name] = id
            drafts[id] = folder.draft_image(str(id), _image_names(split, name), missing)
            with faults.collected("sizes that are not the image's"):
                _check_size(f"{where} ({name})", entry, drafts[id])
        if id not in drafts:
            drafts[id] = folder.drafts.add_image(str(id))  # its objects are read for their faults
    return drafts


def _check_size(where: str, row: dict, image: Draft) -> None:
    size = row.get("width", 0), row.get("height", 0)
    if not all(map(_is_whole, size)):
        raise PipelineError(f"{where} has width and height {shown(size[0])} x {shown(size[1])}; expected pixels")
    check_size(where, *size, image)


def _read_categories(path: Path, entries: Iterable, faults: Faults) -> dict[int, str]:
    names: dict[int, str] = {}
    seen: dict[str, int] = {}
    for id, row in _with_ids(f"{path}: categories", entries, faults):
        name = row.get("name")
        names[id] = name.strip() if isinstance(name, str) else ""
        if not names[id]:
            faults.error("categories without a name", f"{path}: category {id} has the name {shown(name)}", "expected a word")
        elif names[id] in seen:
            message = f"{path}: category {id} is named {name}, as category {seen[names[id]]}"
            faults.error("categories of one name", message, "make them differ")
        seen.setdefault(names[id], id)
    return names


def _read_object(
    where: str, row: dict, *, images: Mapping[int, Draft], names: Mapping[int, str], folder: Folder, edges: Edges
) -> None:
    """Adds one object to its image, or what is wrong with it to `faults`."""
    image_id, category_id, sides, *marks = (row.get(key) for key in ("image_id", "category_id", "bbox", *MARKS))
    crowd, ignore, difficult = (mark == 1 for mark in marks)
    image = images.get(image_id) if _is_whole(image_id) else None
    name = names.get(category_id) if _is_whole(category_id) else None
    is_object = not (crowd or ignore)  # a region to ignore may be of any class
    if name is not None and is_object and folder.classes.leave_out(name):
        return
    if image is None and _is_whole(image_id):
        folder.faults.note(*_orphan(where, image_id))
        return
    here = ObjectFaults(folder.faults, where if image is None or name is None else f"{where} ({name}, image {image_id})")
    if image is None:
        here.error("annotations of no image", f"has the image_id {shown(image_id)}, and no image has this id", CORRECT)
    if name is None:
        text = f"has the category_id {shown(category_id)}, and no category has this id"
        here.error("annotations of no category", text, CORRECT)
    elif is_object:
        folder.classes.check(here, name, ADVICE)
    for mark, value in zip(MARKS, marks):
        if value not in (None, 0, 1):
            here.error(f"annotations with another {mark}", f"has {mark} {shown(value)}", "expected 0 or 1")
    if not isinstance(sides, list) or len(sides) != 4:
        here.error("annotations without a box", f"has the bbox {shown(sides)}", f"expected a list of {', '.join(SIDES)}")
    elif image is not None and name is not None:
        extent = Extent(image.height, image.width, f"the image of {image.width} x {image.height}")
        box = edges.fit(here, _to_corners(sides), extent, lambda: f"has the bbox {shown(sides)}")
        if box is not None:
            image.add(box, name, difficult, crowd or ignore)


def _orphan(where: str, image_id) -> tuple[str, str, str]:
    text = f"{where} has the image_id {shown(image_id)}, and the file lists no image of this id"
    return "annotations of images that the file does not list", text, "left out, as COCO's own tools do"


def _to_corners(sides: list) -> Sequence[float]:
    """The corners in our convention; no numbers where `sides` are none."""
    try:
        x, y, across, down = map(float, sides)
    except (TypeError, ValueError, OverflowError):
        return [math.nan] * 4
    return x, y, x + across, y + down
