"""A split of a data set, whichever layout its folder has."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from pipeline.datasets import coco, voc, yolo
from pipeline.datasets.layouts import COCO, TEST, TRAIN, VOC, YOLO, Layout, divided, find_layouts, voc_list_name
from pipeline.datasets.records import Split
from pipeline.datasets.unknown_layout import describe
from pipeline.errors import DatasetError

READERS: Mapping[str, ModuleType] = {VOC: voc, COCO: coco, YOLO: yolo}


def split_files(root: Path, split: str, test_fraction: float = 0, masks: bool = False) -> list[str]:
    """Every file that defines a split, by its name below `root`. Never raises; files need not exist.

    With `masks` the split is read for its class masks.
    """
    for layout in find_layouts(root, masks):
        layout = _divided(layout, test_fraction)
        if split in layout.splits:
            return READERS[layout.format].split_files(root, split, layout.splits[split], masks)
    return [voc_list_name(split)]


def split_names(root: Path, test_fraction: float = 0) -> list[str]:
    """The names of the splits that a folder has, sorted. Never raises."""
    return sorted({split for layout in find_layouts(root) for split in _divided(layout, test_fraction).splits})


def read_split(
    root: Path, split: str, classes: Sequence[str] | None, digests: Mapping[str, str], *, test_fraction: float = 0, **rules
) -> Split:
    """The images and objects of a split; arguments, `rules` and errors as `voc.read_split`.

    With a `test_fraction`, the only split of a folder is divided: that part of its images is the split `test`, the others are
    `train`. DatasetError too for a folder in no layout, or in more than one, and for a split that it does not have.
    """
    masks = bool(rules.get("masks"))
    layouts = find_layouts(root, masks)
    if problem := _problem(Path(root).absolute(), split, layouts, test_fraction, masks=masks):
        raise DatasetError(f"data set {root}, split '{split}'", [problem])
    (layout,) = layouts
    place = _divided(layout, test_fraction).splits[split]
    return READERS[layout.format].read_split(root, split, classes, digests, place=place, **rules)


def _divided(layout: Layout, test_fraction: float) -> Layout:
    return divided(layout, test_fraction) if test_fraction and len(layout.main_splits) == 1 else layout


def _problem(root: Path, split: str, layouts: Sequence[Layout], test_fraction: float, *, masks: bool) -> str | None:
    """Why the split cannot be read from this folder, and what to do."""
    if not layouts:
        return describe(root, masks)
    if len(layouts) > 1:
        marks = " and ".join(f"{layout.mark} ({layout.format.upper()}'s format)" for layout in layouts)
        return f"{root}: has {marks}; take one of them away"
    (layout,) = layouts
    if layout.fault:
        return layout.fault
    if layout.clashes:
        return f"{root}: {'; '.join(layout.clashes)}; take one of them away"
    splits = layout.main_splits
    if test_fraction and len(splits) > 1:
        return f"{root}: has the splits {', '.join(splits)}; leave out --test-fraction, which divides the only split of a folder"
    if place := _divided(layout, test_fraction).splits.get(split):
        return place.fault or None
    divide = f", or divide it into {TRAIN} and {TEST} with --test-fraction 0.2" if len(splits) == 1 else ""
    names = ", ".join(splits) or "none"
    return f"{root}: has no split '{split}' ({layout.mark}); the splits of this data set are: {names}; give one of them{divide}"
