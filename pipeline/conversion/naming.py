"""What the images of a converted data set are called: one folder holds them all, so that names must differ."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.datasets.reading import IMAGE_SUFFIXES
from pipeline.errors import DatasetError

UNFIT = re.compile(r"[\x00-\x1f\x7f/\\]")


def target_names(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """The name without folders of each image, all different without their suffixes and on any file system.

    An image keeps its name. Where several have the same, they get their folders' names before it: train/a.jpg is train_a.jpg.
    Raises DatasetError for images with another suffix than those that VOC's and YOLO's programs look for.
    """
    paths = list(paths)
    wrong = [path for path in paths if not path.endswith(IMAGE_SUFFIXES)]
    if wrong:
        advice = f"expected one of {', '.join(suffix for suffix in IMAGE_SUFFIXES if suffix.islower())}; save it as PNG"
        raise DatasetError(f"data set {root}", [f"{root / path}: has another suffix; {advice}" for path in wrong])
    short = {path: UNFIT.sub("_", path.rpartition("/")[2]).strip() for path in paths}
    counts: dict[str, int] = {}
    for name in short.values():
        counts[_key(name)] = counts.get(_key(name), 0) + 1
    names: dict[str, str] = {}
    taken: set[str] = {_key(name) for name in short.values() if counts[_key(name)] == 1}
    for path, name in short.items():
        if counts[_key(name)] > 1:
            name = long = UNFIT.sub("_", path).strip()
            number = 2
            while _key(name) in taken:
                stem, suffix = os.path.splitext(long)
                name, number = f"{stem}_{number}{suffix}", number + 1
            taken.add(_key(name))
        names[path] = name
    return names


def _key(name: str) -> str:
    """What must differ: some file systems do not distinguish letters in either case."""
    return os.path.splitext(name)[0].casefold()
