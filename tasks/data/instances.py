"""The masks of a split's objects: files of the data set, or, in COCO's layout, drawn from outlines by `IndexMasks`."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pipeline.later_detectors.names import has_masks
from tasks.data.index_masks import IndexMasks
from tasks.data.splits import load_split
from tasks.engine.task import CachedTask

DRAWN = "masks"


def drawn_masks(task: CachedTask, chain: str, split: str) -> dict[str, CachedTask]:
    """The index that draws the masks of a split, for a chain with masks; none where masks are files of the data set."""
    if not has_masks(chain):
        return {}
    index = task.clone(IndexMasks, split=split)
    return {DRAWN: index} if index.draws else {}


def drawn_indexes(task: CachedTask, chains: Iterable[str]) -> list[CachedTask]:
    """The indexes that draw masks for a run of `chains`: of the split to train on, and of that to test on."""
    splits = task.train_split, task.test_split
    return [index for chain in chains for split in splits for index in drawn_masks(task, chain, split).values()]


def masks_from(task: CachedTask, name: str, split) -> tuple[Sequence, Callable]:
    """The images of `split`, the index that `task` requires as `name`, with the files of their masks; and what reads these."""
    required = task.requires()
    if DRAWN not in required:
        return split.images, instance_reader(required[name].root)
    from pipeline.datasets.instances import with_masks

    drawn = required[DRAWN]
    return with_masks(split.images, load_split(drawn.artefact).images), instance_reader(drawn.mask_root)


def instance_reader(root: Path) -> Callable:
    """A function from a record to its mask of instances, uint8 [height x width], in the folder `root`."""
    from pipeline.datasets.masks import decode_mask
    from pipeline.images.reading import read_content

    def read(record):
        path = root / record.instance_mask.path
        return decode_mask(path, read_content(path, record.instance_mask.digest), (record.height, record.width))

    return read
