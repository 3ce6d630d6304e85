"""COCO's instances files, read strictly.

    <root>/annotations/instances_<split>.json    the images, categories and objects of a split
    <root>/<split>/<file_name>                   or in another folder of `coco_images`; the first of them that exists

A `Place` (see `layouts`) names other files and folders.

A box is (x, y, width, height) in pixels from the image's upper left corner, 0-based and fractional (cocodataset.org, "Data
format"), so that ours is (x, y, x + width, y + height). Classes are the categories' names. An image's id is its number, as in
COCO's result files. `Split.coco` keeps the file's own ids and names, so that results can be compared with the file.

Annotations with `iscrowd` or `ignore` are regions to ignore: a crowd's box holds many objects. Some converters write VOC's
`difficult`, too.

Keypoints are those of COCO's file of persons, in the same file as the boxes: names and limbs belong to the category. Left and
right are told from the names. Outlines (`segmentation`) are read where the split is read for its masks (`coco_masks.py`).
So is what our own files have besides: `void` of an image, the outline of the pixels that belong to no class.
"""

import math
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.datasets.coco_document import MARKS, VOID, Annotations, only_names, parse
from pipeline.datasets.coco_masks import CocoMasks
from pipeline.datasets.coco_names import FileIds, emptied, find_file, names_of, to_id, with_ids
from pipeline.datasets.drafts import Draft
from pipeline.datasets.edges import ADVICE, Edges, Extent
from pipeline.datasets.faults import ObjectFaults
from pipeline.datasets.keypoints import category_skeleton, parse_keypoints
from pipeline.datasets.layouts import Place, coco_images, instances_name
from pipeline.datasets.reading import CORRECT, Folder, Listing, Rules, check_size, is_plain_name, make_split
from pipeline.datasets.records import Split
from pipeline.errors import PipelineError
from pipeline.files.reading import read_regular
from pipeline.text import shown

ID_ZERO = "pycocotools counts this object as not found, whatever is found; count from 1 to compare its AP with ours"
CHECK_FILE = "see that it is the right one"
SIDES = ("x", "y", "width", "height")


def standard_place(split: str) -> Place:
    """Where COCO itself has a split."""
    return Place(instances_name(split), coco_images(split))


def split_files(root: Path, split: str, place: Place | None = None, masks: bool = False) -> list[str]:
    """Names below `root` of every file that defines a split: its instances file, then each image in that file's order.

    Never raises: where the file cannot be read, its name is the only one. Images need not exist.
    """
    place, files = place or standard_place(split), Listing(root)
    path = Path(root, place.index)
    try:
        images = parse(path, read_regular(path, ""), only_names)["images"]
    except PipelineError:
        return [place.index]
    names = names_of(images)
    chosen = place.part.choose(names) if place.part else names
    return [place.index, *(file for name in chosen if (file := find_file(place, name, files.find)[0]))]


def read_split(
    root: Path, split: str, classes: Sequence[str] | None, digests: Mapping[str, str], *, place: Place | None = None, **rules
) -> Split:
    """The images and objects of the instances file of `split`, in its order; arguments and errors as `voc.read_split`."""
    folder, place = Folder(root, digests, classes, Rules(**rules)), place or standard_place(split)
    ids, masks = FileIds(place), CocoMasks(folder) if folder.rules.masks else None
    path, faults = folder.root / place.index, folder.faults
    if not is_plain_name(split) or not os.path.exists(path):
        existing = ", ".join(sorted(file.stem.removeprefix("instances_") for file in path.parent.glob("instances_*.json")))
        faults.error("files that are missing", f"{path}: no such file", f"the splits of this data set are: {existing or 'none'}")
    else:
        with faults.collected("files that cannot be read"):
            _read_document(folder, place, ids, masks)
    read = make_split(split, folder, path, masks.draw() if masks else None)
    return replace(read, coco=ids.names(read.classes))


def _read_document(folder: Folder, place: Place, ids: FileIds, masks: CocoMasks | None) -> None:
    path, rows, faults, edges = folder.root / place.index, Annotations(masks is not None), folder.faults, folder.edges()
    document = parse(path, folder.read(place.index), rows.take)
    images = _read_images(folder, place, ids, document["images"], masks)
    names = _read_categories(path, document["categories"], ids, folder)
    listed = document["annotations"]
    for id, annotation in with_ids(f"{path}: annotations", rows.entries(listed), faults, rows.differ(listed)):
        if not (ids.elsewhere and to_id(annotation.get("image_id")) in ids.elsewhere):
            where = f"{path}: annotation {id}"
            _read_object(where, annotation, images=images, names=names, ids=ids, folder=folder, edges=edges, masks=masks)
    edges.tell()


def _read_images(
    folder: Folder, place: Place, ids: FileIds, entries: list, masks: CocoMasks | None
) -> dict[int | str, Draft]:
    drafts: dict[int | str, Draft] = {}
    seen: dict[str, int | str] = {}
    faults, root = folder.faults, folder.root
    path, find = root / place.index, partial(_first_in, folder.digests)
    missing = f"no such file (nor in {', '.join(str(root / name) for name in place.images[1:]) or 'another folder'})"
    ids.choose(entries)
    for id, entry in with_ids(f"{path}: images", emptied(entries), faults):
        where, name = f"{path}: image {id}", entry.get("file_name")
        if ids.leaves_out(id, name):
            continue
        file, is_there = find_file(place, name, find)
        if file is None or (file in seen and not is_there):
            message = f"{where} has the file_name {shown(name)}"
            faults.error("images without a file", message, "expected a file's name that stays in the folder")
        elif file in seen:
            faults.error("repeated images", f"{where} is {name}, as image {seen[file]}", "remove one of them")
        else:
            seen[file] = id
            drafts[id] = folder.draft_image(str(id), [file], missing)
            if not is_there:
                faults.note("files in another folder", f"{where} has the file_name {shown(name)}, read from {file}", CHECK_FILE)
            with faults.collected("sizes that are not the image's"):
                _check_size(f"{where} ({name})", entry, drafts[id])
            if masks and VOID in entry:
                masks.add_void(f"{where} ({name})", drafts[id], entry[VOID])
        if id not in drafts:
            drafts[id] = folder.drafts.add_image(str(id))  # its objects are read for their faults
        ids.add_image(entry["id"], name)
    return drafts


def _first_in(names: Container[str], candidates: list[str]) -> str | None:
    return next((name for name in candidates if name in names), None)


def _check_size(where: str, row: dict, image: Draft) -> None:
    width, height = (0 if row.get(side) is None else row[side] for side in ("width", "height"))  # some tools write null
    if not (_is_length(width) and _is_length(height)):
        raise PipelineError(f"{where} has width and height {shown(width)} x {shown(height)}; expected pixels")
    check_size(where, width, height, image)


def _is_length(value) -> bool:
    return type(value) is int or (isinstance(value, float) and np.isfinite(value))


def _read_categories(path: Path, entries: Iterable, ids: FileIds, folder: Folder) -> dict[int | str, str]:
    faults, drafts = folder.faults, folder.drafts
    names: dict[int | str, str] = {}
    seen: dict[str, int | str] = {}
    for id, row in with_ids(f"{path}: categories", entries, faults):
        name = row.get("name")
        names[id] = name.strip() if isinstance(name, str) else ""
        if not names[id]:
            faults.error("categories without a name", f"{path}: category {id} has the name {shown(name)}", "expected a word")
        elif names[id] in seen:
            message = f"{path}: category {id} is named {name}, as category {seen[names[id]]}"
            advice = "they are one class; the result file has the id that has more objects"
            faults.note("categories of one name", message, advice)
        seen.setdefault(names[id], id)
        ids.add_category(id, row["id"], names[id])
        if row.get("keypoints"):
            with faults.collected("categories whose keypoints cannot be used"):
                skeleton = category_skeleton(path, id, row)
                if drafts.skeleton not in (None, skeleton):
                    raise PipelineError(f"{path}: category {id} has other keypoints than a category before it; leave out one")
                drafts.skeleton = skeleton
    return names


def _read_object(
    where: str, row: dict, *, images: Mapping[int | str, Draft], names: Mapping[int | str, str], ids: FileIds, folder: Folder,
    edges: Edges, masks: CocoMasks | None,
) -> None:
    """Adds one object to its image, or what is wrong with it to `faults`."""
    image_id, category_id, sides, *marks = (row.get(key) for key in ("image_id", "category_id", "bbox", *MARKS))
    crowd, ignore, difficult = (mark == 1 for mark in marks)
    image_key, category_key = to_id(image_id), to_id(category_id)
    image = None if image_key is None else images.get(image_key)
    name = None if category_key is None else names.get(category_key)
    is_object = not (crowd or ignore)  # a region to ignore may be of any class
    if name is not None and is_object and folder.classes.leave_out(name):
        return
    if image is None and image_key is not None:
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
        runs = masks.runs(here, row.get("segmentation"), image) if masks else None
        if masks and (here.any or box is None):
            masks.add_unknown(image, runs, box)
        elif box is not None:
            if masks and runs:
                masks.add(image, runs, name if is_object else None)
            image.add(box, name, difficult, crowd or ignore, _keypoints_of(here, row, folder, image) if is_object else None)
            if is_object:
                ids.count_object(category_key)
                if to_id(row["id"]) == 0:
                    folder.faults.note("annotations with the id 0", f"{where} has the id 0", ID_ZERO)


def _keypoints_of(here: ObjectFaults, row: dict, folder: Folder, image: Draft) -> np.ndarray | None:
    """The keypoints [k x 3] of an object; None where it has none."""
    values, skeleton = row.get("keypoints"), folder.drafts.skeleton
    if values is None or skeleton is None:
        return None
    count = len(skeleton.names)
    rows = [values[start:start + 3] for start in range(0, len(values), 3)] if isinstance(values, list) else values
    keypoints = parse_keypoints(rows, count)
    if keypoints is None:
        here.error("annotations with other keypoints", f"has the keypoints {shown(values)}", f"expected {count} of x, y, v")
    return folder.labelled_inside(here.where, keypoints, image)


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
