"""A data set in one layout, written in another.

1. Read all splits strictly, as a run does: what is wrong is told before anything is written.
2. Write into a hidden folder beside the target.
3. Read what was written, and compare it with what was meant.
4. Rename the folder. A target that exists is never touched, and a failure leaves nothing behind.

An image that is in several splits is written once. The image files stay as they are, byte for byte.
"""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.conversion.compare import Differences, compare
from pipeline.conversion.naming import target_names
from pipeline.conversion.writers import WRITERS, Target
from pipeline.datasets.records import ImageRecord
from pipeline.datasets.whole import Dataset, Progress, check_same_objects, read_dataset, silent
from pipeline.errors import ChangedFile, PipelineError
from pipeline.files.reading import read_regular
from pipeline.files.writing import write_file

MASK_NAMES = "classes.txt"


@dataclass(frozen=True)
class Conversion:
    """What was converted. `lost` counts what the target's format cannot hold, `noted` what else a reader should know."""

    source: Dataset
    names: Mapping[str, str]
    lost: Counter
    noted: Counter
    differences: Differences


def convert(
    source: Path, target: Path, format: str, *, link: bool = False, splits=(), classes=(), progress: Progress = silent, **rules
) -> Conversion:
    """Writes the data set in the folder `source` into the new folder `target`, in `format`: voc, coco or yolo.

    With `link`, images and masks are symbolic links to the source's files. `splits` and `classes` choose, all if empty; `rules`
    are those of `voc.read_split`. Raises PipelineError for a wrong source or target; OSError for a disk that fails.
    """
    source, target = Path(source), Path(target)
    check_target(source, target)
    dataset = read_dataset(source, splits, classes, progress, **rules)
    check_same_objects(dataset)
    images = dataset.images()
    names = target_names(source, images)
    with new_folder(target) as folder:
        files = Target(folder, dataset, names, bool(classes))
        writer = WRITERS[format](files)
        for image in progress(list(images.values()), "writing"):
            _put_images(files, writer.image_folder, image, link)
            writer.add(image)
            for field_name, mask_folder in writer.mask_folders.items():
                _put_mask(files, field_name, mask_folder, image, link)
        writer.finish()
        if writer.mask_folders and any(image.class_mask for image in images.values()):
            _put_mask_names(files)
        differences = compare(dataset, names, folder, format=format, rules=rules, progress=progress)
    return Conversion(dataset, names, files.lost, files.noted, differences)


def check_target(source: Path, target: Path) -> None:
    """Raises PipelineError unless `target` is a new folder outside `source`, in a folder that exists."""
    if os.path.lexists(target):
        raise PipelineError(f"{target}: exists already; give the name of a new folder")
    parent = target.absolute().parent
    if not parent.is_dir():
        raise PipelineError(f"{parent}: no such folder; make it first")
    if parent.resolve().is_relative_to(source.resolve()):
        raise PipelineError(f"{target}: lies in the data set {source}; give a folder outside of it")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target` that becomes `target` when the block ends, and is removed when it fails."""
    folder = target.absolute().parent / f".{target.name}.part-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
        if os.path.lexists(target):
            raise PipelineError(f"{target}: was made meanwhile; give the name of a new folder")
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _put_images(files: Target, folder: str, image: ImageRecord, link: bool) -> None:
    _put(files.dataset.root / image.path, image.digest, files.folder / folder / files.names[image.path], link)


def _put_mask(files: Target, field_name: str, folder: str, image: ImageRecord, link: bool) -> None:
    if mask := getattr(image, field_name):
        _put(files.dataset.root / mask.path, mask.digest, files.folder / folder / f"{files.stem(image)}.png", link)


def _put_mask_names(files: Target) -> None:
    """The file that names the values of class masks, where the source has one."""
    path = files.dataset.root / MASK_NAMES
    if path.is_file():
        write_file(files.folder / MASK_NAMES, read_regular(path, "mend that"))


def _put(path: Path, digest: str, target: Path, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(path.resolve())
        return
    content = read_regular(path, "convert again")
    if hashlib.sha256(content).hexdigest() != digest:
        raise ChangedFile(path, f"{path}: changed while the data set was converted; convert again")
    write_file(target, content)
