"""COCO's instances files, read strictly.

    <root>/annotations/instances_<split>.json    the images, categories and objects of a split
    <root>/<split>/<file_name>                   or <root>/images/<file_name>, <root>/<file_name>; the first of them that exists

A box is (x, y, width, height) in pixels from the image's upper left corner, 0-based and fractional (cocodataset.org, "Data
format"), so that ours is (x, y, x + width, y + height). Classes are categories by name, whatever their numbers. An image's id is
its number, as COCO's results want it.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.datasets.reading import ADVICE, Draft, Faults, check_size, draft_image, is_plain_name, make_split, read_file, to_box
from pipeline.datasets.records import Split
from pipeline.errors import PipelineError
from pipeline.files import MAX_MEGAPIXELS, parse_json, read_regular
from pipeline.text import shown

ANNOTATIONS, PREFIX = "annotations", "instances_"
TABLES = ("images", "categories", "annotations")
SIDES = ("x", "y", "width", "height")
# COCO rounds its numbers to hundredths, which can take x + width past the edge. A whole pixel too far is counted from 1.
ROUNDING = 0.5


def splits_of(root: Path) -> list[str]:
    """The names of the splits in the folder; none where it is not in COCO's layout."""
    return sorted(path.stem.removeprefix(PREFIX) for path in (Path(root) / ANNOTATIONS).glob(f"{PREFIX}*.json"))


def split_files(root: Path, split: str) -> list[Path]:
    """Every file that defines a split, as absolute paths: its instances file, then each image in that file's order.

    Never raises: without a readable file there is that one alone. Images need not exist.
    """
    root = Path(root).absolute()
    path = _instances_path(root, split)
    try:
        images = _parse(path, read_regular(path, ""))["images"]
    except PipelineError:
        return [path]
    names = (image.get("file_name") for image in images if isinstance(image, dict))
    return [path, *(_image_path(root, split, name) for name in names if _stays_inside(name))]


def read_split(
    root: Path, split: str, classes: Sequence[str] | None, digests: Mapping[Path, str], on_bad_annotation: str = "error",
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Split:
    """The images and objects of the instances file of `split`, in its order; arguments and errors as `voc.read_split`."""
    faults, root = Faults(on_bad_annotation, max_megapixels), Path(root).absolute()
    path, images = _instances_path(root, split), {}
    if not is_plain_name(split) or not os.path.exists(path):
        existing = ", ".join(splits_of(root)) or "none"
        faults.problems.append(f"{path}: no such file; the splits of this data set are: {existing}")
    else:
        with faults.collected():
            document = _parse(path, read_file(path, digests))
            tables = {table: _by_id(f"{path}: {table}", document[table], faults) for table in TABLES}
            images = _read_images(root, split, tables["images"], digests, faults)
            names = _read_categories(path, tables["categories"], faults)
            for id, annotation in tables["annotations"].items():
                _read_object(f"{path}: annotation {id}", annotation, images, names, classes, faults)
    return make_split(split, list(images.values()), classes, faults, root, path)


def _instances_path(root: Path, split: str) -> Path:
    return root / ANNOTATIONS / f"{PREFIX}{split}.json"


def _image_path(root: Path, split: str, name: str) -> Path:
    candidates = [root / split / name, root / "images" / name, root / name]
    return next((path for path in candidates if os.path.isfile(path)), candidates[0])


def _stays_inside(name) -> bool:
    """Whether `name` is a file name, perhaps with folders before it, that stays in the folder it is joined to."""
    return isinstance(name, str) and all(map(is_plain_name, name.split("/")))


def _is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _parse(path: Path, content: bytes) -> dict[str, list]:
    """The lists of an instances file; PipelineError when it is none."""

    def without_outlines(value: dict) -> dict:
        value.pop("segmentation", None)  # most of a file, and of the memory that it takes
        return value

    # A coordinate that is no number is one object's fault.
    document = parse_json(path, content, "correct the file", constants=True, object_hook=without_outlines)
    missing = [table for table in TABLES if not isinstance(document, dict) or not isinstance(document.get(table), list)]
    if missing:
        raise PipelineError(f"{path}: has no list of {', '.join(missing)}; expected COCO's lists {', '.join(TABLES)}")
    return document


def _by_id(where: str, rows: list, faults: Faults) -> dict[int, dict]:
    """The entries of a list by their ids."""
    found: dict[int, dict] = {}
    for number, row in enumerate(rows, 1):
        id = row.get("id") if isinstance(row, dict) else None
        if not _is_whole(id):
            faults.problems.append(f"{where}: entry {number} has the id {shown(id)}; expected an object with a whole number")
        elif id in found:
            faults.problems.append(f"{where}: entry {number} has the id {id}, as an entry before it; make them differ")
        else:
            found[id] = row
    return found


def _read_images(
    root: Path, split: str, rows: Mapping[int, dict], digests: Mapping[Path, str], faults: Faults
) -> dict[int, Draft]:
    drafts, seen = {}, {}
    for id, row in rows.items():
        where, name = f"{_instances_path(root, split)}: image {id}", row.get("file_name")
        drafts[id] = Draft(str(id), "", "")
        if not _stays_inside(name):
            faults.problems.append(f"{where} has the file_name {shown(name)}; expected a file's name that stays in the folder")
        elif name in seen:
            faults.problems.append(f"{where} is {name}, as image {seen[name]}; remove one of them")
        else:
            seen[name] = id
            missing = f"no such file (nor in {root / 'images'} or {root})"
            drafts[id] = draft_image(root, str(id), _image_path(root, split, name), digests, missing, faults)
            with faults.collected():
                _check_size(f"{where} ({name})", row, drafts[id])
    return drafts


def _check_size(where: str, row: dict, image: Draft) -> None:
    size = row.get("width", 0), row.get("height", 0)
    if not all(map(_is_whole, size)):
        raise PipelineError(f"{where} has width and height {shown(size[0])} x {shown(size[1])}; expected pixels")
    check_size(where, *size, image)


def _read_categories(path: Path, rows: Mapping[int, dict], faults: Faults) -> dict[int, str]:
    names, seen = {}, {}
    for id, row in rows.items():
        name = row.get("name")
        names[id] = name.strip() if isinstance(name, str) else ""
        if not names[id]:
            faults.problems.append(f"{path}: category {id} has the name {shown(name)}; expected a word")
        elif names[id] in seen:
            faults.problems.append(f"{path}: category {id} is named {name}, as category {seen[names[id]]}; make them differ")
        seen.setdefault(names[id], id)
    return names


def _read_object(
    where: str, row: dict, images: Mapping[int, Draft], names: Mapping[int, str], classes: Sequence[str] | None, faults: Faults
) -> None:
    """Adds one object to its image, or what is wrong with it to `faults`."""
    problems, droppable = [], []
    image_id, category_id, crowd, sides = (row.get(key) for key in ("image_id", "category_id", "iscrowd", "bbox"))
    if not _is_whole(image_id) or image_id not in images:
        problems.append(f"has the image_id {shown(image_id)}, and no image has this id; correct it")
    if not _is_whole(category_id) or category_id not in names:
        problems.append(f"has the category_id {shown(category_id)}, and no category has this id; correct it")
    elif classes is not None and names[category_id] not in classes:
        droppable.append(f"is of no known class ({', '.join(classes)}); {ADVICE}")
    if crowd not in (None, 0, 1):
        problems.append(f"has iscrowd {shown(crowd)}; expected 0 or 1")
    if not isinstance(sides, list) or len(sides) != 4:
        problems.append(f"has the bbox {shown(sides)}; expected a list of {', '.join(SIDES)}")
    if not problems:
        image, name = images[image_id], names[category_id]
        where = f"{where} ({name}, image {image_id})"
        try:
            box = _to_box(sides, image.height, image.width)
        except ValueError as error:
            droppable.append(f"has the bbox {shown(sides)}, {error}; {ADVICE}")
        if not droppable:
            # A crowd's box holds many objects and is none itself: like VOC's difficult objects it is neither to be found nor a
            # false alarm where something is found.
            image.add(box, name, crowd == 1)
    faults.problems += [f"{where} {text}" for text in problems]
    faults.droppable += [f"{where} {text}" for text in droppable]


def _to_box(sides: list, height: float, width: float) -> np.ndarray:
    try:
        x, y, across, down = map(float, sides)
    except (TypeError, ValueError, OverflowError):
        x = y = across = down = np.nan
    return to_box([x, y, x + across, y + down], height, width, f"the image of {width} x {height}", ROUNDING)
