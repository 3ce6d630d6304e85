"""Where the files of YOLO's layout are: its splits, the images of each, and the label file of an image.

What `data.yaml`, `obj.data` and lists of images call a file is looked for in the data set's own folder, in this order:

1. below `path`, or beside the list that names it;
2. below the data set's folder;
3. without the `../` that Roboflow writes, or the `data/` that CVAT writes;
4. an absolute path, if it lies in the data set's folder.

A path that leads elsewhere is refused.
"""

import os
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.datasets.folder_tree import Tree, below
from pipeline.datasets.yolo_document import MARK, SPLITS, parse_darknet, parse_yaml, splits_of
from pipeline.errors import PipelineError
from pipeline.files.reading import read_regular
from pipeline.text import shown

ALL, NO_SPLIT = "all", ""
DARKNET, CLASSES = "obj.data", "classes.txt"
IMAGES, LABELS = "images", "labels"
# Of images, in any case. What Ultralytics reads and we do not is an error, and not passed over.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".mpo", ".tif", ".tiff", ".dng", ".heic", ".jp2", ".avif", ".pfm")
ENDS = ("no such folder of images, and no such list", "leads out of the data set's folder")

# A split's name, the file that names the classes, its sources, and why the split cannot be read.
Found = Iterator[tuple[str, str, tuple[str, ...], str]]


def by_yaml(tree: Tree) -> Found:
    """The splits of each YAML file that names classes."""
    for index in (name for name in tree.files("") if name.endswith((".yaml", ".yml")) and MARK.search(tree.head(name))):
        path = Path(tree.root, index)
        try:
            base, splits = splits_of(path, parse_yaml(path, read_regular(path, "correct the file")))
            if not splits:
                raise PipelineError(f"{path}: has no split; expected train, val or test, each with a folder of images")
        except PipelineError as error:
            yield NO_SPLIT, index, (), str(error)
            continue
        for split, values in splits.items():
            yield _split(tree, index, split, values, [base])


def by_darknet(tree: Tree) -> Found:
    """The splits of Darknet's `obj.data`."""
    if DARKNET not in tree.files(""):
        return
    path = Path(tree.root, DARKNET)
    try:
        values = parse_darknet(path, read_regular(path, "correct the file"))
        splits = {key: value for key, value in values.items() if key in SPLITS}
        if not splits:
            raise PipelineError(f"{path}: has no split; expected a line such as train = train.txt")
    except PipelineError as error:
        yield NO_SPLIT, DARKNET, (), str(error)
        return
    for split, value in splits.items():
        yield _split(tree, DARKNET, split, [value], [])


def by_classes(tree: Tree) -> Found:
    """The one split of a folder with `classes.txt` and label files, in `labels/` or beside the images."""
    if CLASSES not in tree.files("") or any(by_yaml(tree)) or any(by_darknet(tree)):
        return
    if any(name.endswith(".txt") for name in tree.files(LABELS)) and tree.has_folder(IMAGES):
        yield ALL, CLASSES, (IMAGES,), ""
        return
    images = {os.path.splitext(name)[0] for name in tree.files("") if is_image(name)}
    if any(name.removesuffix(".txt") in images for name in tree.files("", ".txt")):
        yield ALL, CLASSES, ("",), ""


def _split(tree: Tree, index: str, split: str, values: Iterable[str], bases: list[str]) -> tuple[str, str, tuple[str, ...], str]:
    sources = []
    for value in values:
        name, is_there = locate(tree, value, bases)
        if name is None or not is_there:
            return split, index, (), f"{Path(tree.root, index)}: {split} is {shown(value)}; {ENDS[name is None]}"
        sources.append(name)
    return split, index, tuple(sources), ""


def locate(tree: Tree, text: str, bases: Iterable[str]) -> tuple[str | None, bool]:
    """The file or folder that `text` means, below the data set's folder, and whether it exists; None if it leads elsewhere."""
    text = text.strip().replace("\\", "/")
    inside = []
    for candidate in _candidates(tree.root, text, bases):
        name = posixpath.normpath(candidate)
        if not name.startswith(("../", "/")) and name != ".." and "\0" not in name:
            inside.append("" if name == "." else name)
    for name in inside:
        if tree.has_folder(name) or tree.has_file(name):
            return name, True
    return (inside[0] if inside else None), False


def _candidates(root: str, text: str, bases: Iterable[str]) -> Iterator[str]:
    if text.startswith("/"):
        yield text.removeprefix(f"{root}/") if text.startswith(f"{root}/") else text
        return
    yield from (posixpath.join(base.replace("\\", "/"), text) for base in bases if not base.startswith("/"))
    yield text
    stripped = posixpath.normpath(text)
    while stripped.startswith("../"):
        stripped = stripped[3:]
    if stripped != posixpath.normpath(text):
        yield stripped
    if stripped.startswith("data/"):
        yield stripped[len("data/"):]


def is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def images_in(tree: Tree, folder: str) -> Iterator[str]:
    """The images in a folder and in all folders in it, as Ultralytics reads it; the folder's own first, each sorted."""
    waiting = [folder]
    seen = set()
    while waiting:
        here = waiting.pop(0)
        # A link may lead back to a folder above it.
        if (real := os.path.realpath(f"{tree.root}/{here}")) in seen:
            continue
        seen.add(real)
        yield from (below(here, name) for name in tree.files(here) if is_image(name))
        waiting += [below(here, name) for name in tree.folders(here)]


def label_names(image: str) -> list[str]:
    """Where the label file of an image may be: in `labels` in place of the last folder `images` above it, or beside it."""
    stem = os.path.splitext(image)[0] + ".txt"
    parts = stem.split("/")
    places = [number for number, part in enumerate(parts[:-1]) if part == IMAGES]
    if not places:
        return [stem]
    return ["/".join([*parts[:places[-1]], LABELS, *parts[places[-1] + 1:]]), stem]


def ids_of(images: Iterable[str]) -> dict[str, str]:
    """The id of each image: its name without suffix; with its folders, or with its suffix too, where another has the same."""
    ids: dict[str, str] = {}
    images = list(images)
    for shorten in (lambda name: os.path.splitext(name.rpartition("/")[2])[0], lambda name: os.path.splitext(name)[0], str):
        left = [name for name in images if name not in ids]
        short = {name: shorten(name) for name in left}
        counts: dict[str, int] = {}
        for id in short.values():
            counts[id] = counts.get(id, 0) + 1
        taken = set(ids.values())
        ids |= {name: id for name, id in short.items() if counts[id] == 1 and id not in taken}
    return {name: ids.get(name, name) for name in images}
