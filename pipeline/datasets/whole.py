"""All splits of a data set together: one list of classes, each image once, whichever layout the folder has."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.datasets import yolo
from pipeline.datasets.formats import read_split, split_files
from pipeline.datasets.layouts import COCO, YOLO, Layout, find_layouts
from pipeline.datasets.records import NO_CLASS, ImageRecord, ImageTable, Split
from pipeline.errors import DatasetError, PipelineError
from pipeline.files.reading import read_regular

Progress = Callable[[Sequence, str], Iterable]  # an iterator over a list that shows how far it is, under a title


def silent(items: Sequence, title: str) -> Iterable:
    return items


@dataclass(frozen=True)
class Dataset:
    """The splits of the folder `root`, with the same classes. `left_out` are lists that the folder has and nobody asked for."""

    root: Path
    format: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    left_out: tuple[str, ...] = ()

    def images(self) -> dict[str, ImageRecord]:
        """Each image once, by its path, in the order of the splits."""
        return {image.path: image for split in self.splits.values() for image in split.images}


def read_dataset(
    root: Path, splits: Sequence[str] = (), classes: Sequence[str] = (), progress: Progress = silent, **rules
) -> Dataset:
    """The given splits of a folder, or all except VOC's lists for each class; `rules` and errors as `voc.read_split`.

    The classes are `classes`, in this order; objects of others are left out and counted. Otherwise they are those of all splits:
    in the order of YOLO's and COCO's numbers, or sorted.
    """
    layouts = find_layouts(root)
    known = layouts[0].main_splits if len(layouts) == 1 else []
    digests: dict[str, str] = {}
    read: dict[str, Split] = {}
    for name in progress(list(splits or known or ["train"]), "reading"):
        files = split_files(root, name)
        digests |= {file: digest for file in files if file not in digests and (digest := _digest(Path(root, file)))}
        chosen = {file: digests[file] for file in files if file in digests}
        read[name] = read_split(root, name, classes or None, chosen, only_classes=bool(classes), **rules)
    (layout,) = layouts  # more than one is an error above
    names = tuple(classes) or _in_order(Path(root), layout, read)
    left_out = tuple(name for name in layout.splits if name not in read)
    with_classes = {name: _with_classes(split, names) for name, split in read.items()}
    return Dataset(Path(root), layout.format, names, with_classes, left_out)


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(read_regular(path, "")).hexdigest()
    except PipelineError:
        return None  # the reader tells of it


def _in_order(root: Path, layout: Layout, splits: Mapping[str, Split]) -> tuple[str, ...]:
    """The names of all classes, in the order of the data set's own numbers where it has any."""
    names = sorted({name for split in splits.values() for name in split.classes})
    if layout.format == YOLO:
        given = (name for split in splits for name in yolo.class_names(root, layout.splits[split]))
        return tuple(dict.fromkeys(given))
    if layout.format == COCO:
        numbers: dict = {}
        for split in splits.values():
            numbers = dict(zip(split.classes, split.coco.category_ids if split.coco else ())) | numbers
        if all(isinstance(number, int) for number in numbers.values()):
            return tuple(sorted(names, key=lambda name: (numbers[name], name)))
    return tuple(names)


def _with_classes(split: Split, classes: tuple[str, ...]) -> Split:
    """The split with labels that index `classes`."""
    numbers = {name: number for number, name in enumerate(classes)}
    lookup = np.array([numbers[name] for name in split.classes] + [NO_CLASS], np.int64)  # its last place is that of NO_CLASS
    table = ImageTable(replace(image, labels=lookup[image.labels]) for image in split.images)
    return replace(split, classes=classes, images=table)


def check_same_objects(dataset: Dataset) -> None:
    """Raises DatasetError where an image has other objects in one split than in another, as COCO's files can have."""
    first: dict[str, tuple[str, ImageRecord]] = {}
    problems = []
    for name, split in dataset.splits.items():
        for image in split.images:
            before, same = first.setdefault(image.path, (name, image))
            if not (np.array_equal(image.boxes, same.boxes) and np.array_equal(image.labels, same.labels)):
                problems.append(f"{dataset.root / image.path}: has other objects in split '{name}' than in split '{before}'; "
                                "give one of them with --splits")
    if problems:
        raise DatasetError(f"data set {dataset.root}", problems)
