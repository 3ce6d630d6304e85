"""A split of a data set in whichever layout its folder is: VOC's or COCO's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from pipeline.datasets import coco, voc
from pipeline.datasets.records import Split
from pipeline.errors import DatasetError


def split_files(root: Path, split: str) -> list[str]:
    """Every file that defines a split, by its name below `root`. Never raises; files need not exist."""
    return _formats(root)[0].split_files(root, split)


def read_split(root: Path, split: str, classes: Sequence[str] | None, digests: Mapping[str, str], **rules) -> Split:
    """The images and objects of a split; arguments and errors as `voc.read_split`, one more where the folder has both layouts."""
    formats = _formats(root)
    if len(formats) > 1:
        fault = "it has ImageSets/Main (VOC's layout) and annotations/instances_*.json (COCO's); take one of them away"
        raise DatasetError(f"data set {root}, split '{split}'", [f"{root}: {fault}"])
    return formats[0].read_split(root, split, classes, digests, **rules)


def _formats(root: Path) -> list[ModuleType]:
    """The readers for the folder's layouts; VOC's, which says what is missing, where it has none."""
    readers = [voc] if (Path(root) / "ImageSets" / "Main").is_dir() else []
    return readers + ([coco] if coco.splits_of(root) else []) or [voc]
