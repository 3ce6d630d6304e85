"""The split that thresholds are chosen on: one that the detector is neither trained nor tested on, if the data set has one."""

import os

from tasks.data.index import IndexDataset
from tasks.engine.task import CachedTask

VALIDATION = ("val", "valid", "validation")
WITH_VAL = {"val", "trainval"}  # the splits of `digits` and of PASCAL VOC that hold the images of `val`


def held_out_split(task: CachedTask) -> str | None:
    """The name of a validation split that shares no image with the training and the test split of `task`; else None.

    In the user's own folder the files of the images decide, otherwise the names of the splits.
    """
    index, used = task.clone(IndexDataset, split=task.train_split), (task.train_split, task.test_split)
    if index.source():
        return None if WITH_VAL & set(used) else VALIDATION[0]
    splits = splits_of_folder(index)
    taken = {image for split in used if split in splits for image in _images(index, split)}
    free = (split for split in VALIDATION if split in splits and split not in used)
    return next((split for split in free if not taken & _images(index, split)), None)


def has_split(task: CachedTask, split: str) -> bool:
    """Whether the data set has the split, as far as that is known before it is there."""
    index = task.clone(IndexDataset, split=task.train_split)
    return bool(index.source()) or split in splits_of_folder(index)


def splits_of_folder(index: IndexDataset) -> list[str]:
    """The splits of the user's own folder."""
    from pipeline.datasets.formats import split_names

    return split_names(index.root, index.test_fraction)


def _images(index: IndexDataset, split: str) -> set[str]:
    """The image files of a split of the user's own folder."""
    from pipeline.datasets.formats import split_files
    from pipeline.datasets.reading import IMAGE_SUFFIXES

    names = split_files(index.root, split, index.test_fraction)
    return {name for name in names if os.path.splitext(name)[1] in IMAGE_SUFFIXES}
