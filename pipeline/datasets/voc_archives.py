"""The archives of PASCAL VOC 2007 and 2012: where they are, their checksums, and unpacking them into a folder in VOC's layout.

Several archives unpacked into one folder are one data set: their images have different names, and a list of the same name in
several of them (`trainval` of 2007 and of 2012) becomes the list of all.
"""

import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, NamedTuple

from pipeline.errors import PipelineError
from pipeline.files.reading import open_regular
from pipeline.files.writing import create
from pipeline.text import flat, shown

URL = "https://thor.robots.ox.ac.uk/pascal/VOC/"
LISTS = ("ImageSets", "Main")
LONGEST_READ = 1 << 24  # bytes that are read at once: a header that claims more is not a header
MASK_LISTS = ("ImageSets", "Segmentation")
FOLDERS = (("Annotations",), ("JPEGImages",), LISTS)
WITH_MASKS = (*FOLDERS, MASK_LISTS, ("SegmentationClass",), ("SegmentationObject",))


class Archive(NamedTuple):
    """One archive: `name` is the file's, `folder` where VOC's official server has it, `url` its address on another server."""

    name: str
    folder: str
    md5: str
    url: str = ""

    def urls(self, mirrors: Sequence[str]) -> list[str]:
        """Its addresses: in each of `mirrors`, then the official one."""
        official = self.url or f"{URL}{self.folder}/{self.name}"
        return [*(f"{mirror.rstrip('/')}/{self.name}" for mirror in mirrors), official]


# Checksums as in torchvision's datasets/voc.py.
TRAINVAL_2007 = Archive("VOCtrainval_06-Nov-2007.tar", "voc2007", "c52e279531787c972589f7e41ab4ae64")
TEST_2007 = Archive("VOCtest_06-Nov-2007.tar", "voc2007", "b6e924de25625d8de591ea690078ad9f")
TRAINVAL_2012 = Archive("VOCtrainval_11-May-2012.tar", "voc2012", "6cd6e144f989b92b3379bac3b3de84fd")
# The values of VOC's class masks from 1 on.
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
DATA_SETS = {
    "voc2007": (TRAINVAL_2007, TEST_2007), "voc2012": (TRAINVAL_2012,), "voc0712": (TRAINVAL_2007, TEST_2007, TRAINVAL_2012),
}


# Those with class masks; SBD's masks are of VOC 2012's photographs.
SBD = "sbd"
SBD_ARCHIVE = Archive(  # checksum as in torchvision's datasets/sbd.py
    "benchmark.tgz", SBD, "82b4d87ceb2ed10f6038a1cba92111cb",
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
)
MASK_SETS = (*DATA_SETS, SBD)


def mask_archives_of(name: str) -> tuple[Archive, ...]:
    """The archives that make the data set `name` with class masks. Raises PipelineError for an unknown data set."""
    return (*archives_of("voc2012"), SBD_ARCHIVE) if name == SBD else archives_of(name)


def archives_of(name: str) -> tuple[Archive, ...]:
    """The archives that make the data set `name`. Raises PipelineError for an unknown data set."""
    if name not in DATA_SETS:
        raise PipelineError(f"--dataset {name}: not a data set to download; there are {', '.join(DATA_SETS)}")
    return DATA_SETS[name]


def unpack(archive: Path, root: Path, folders: Sequence[tuple[str, ...]] = FOLDERS) -> None:
    """Writes what is needed of the tar file `archive` (VOCdevkit/VOC<year>/...) into the new or growing folder `root`.

    Nothing in the archive decides where a file goes but plain names below `folders`: no owner, mode or link is taken over, so
    that the safety of `tarfile` does not matter. Raises PipelineError, naming the member, for one that is neither file nor
    folder, whose path leads out or is none, whose content has holes, or that is there already; and for an archive that cannot be
    read.
    """
    read_members(archive, root, lambda tar, member: _unpack_member(archive, tar, member, root, folders))


def read_members(
    archive: Path, root: Path, take: Callable[[tarfile.TarFile, tarfile.TarInfo], None], mode: Literal["r:", "r:gz"] = "r:"
) -> None:
    """Calls `take` for each member of the tar file `archive`; `root`, where they are unpacked, is named in errors."""
    member = None
    try:
        # `tarfile` only reads here; its types want a file that can also write.
        with open_regular(archive) as file, tarfile.open(archive, mode, fileobj=_Bounded(file)) as tar:  # type: ignore[call-overload]
            last = -1
            for member in tar:
                if member.offset <= last:  # a negative size leads back to a member that was read, and reading would never end
                    raise PipelineError(f"{archive}: behind {shown(member.name)} it leads back; get it elsewhere")
                last = member.offset
                _check_member(archive, member)
                take(tar, member)
    except PipelineError:
        raise
    except (tarfile.TarError, ArithmeticError, LookupError, MemoryError, OSError, RecursionError, TypeError, ValueError) as error:
        where = f", at or behind {shown(member.name)}" if member else ""
        fault = f"cannot be unpacked into {root} ({flat(error)}{where})"
        raise PipelineError(f"{archive}: {fault}; mend that or get it again") from error


class _Bounded:
    """A file that limits each read to its size and to LONGEST_READ: `tarfile` reads as much as headers claim."""

    def __init__(self, file: BinaryIO):
        self.file, self.size, self.seek, self.tell = file, os.fstat(file.fileno()).st_size, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        most = min(max(self.size - self.file.tell(), 0), LONGEST_READ)
        return self.file.read(most if size < 0 else min(size, most))


def _check_member(archive: Path, member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise PipelineError(f"{archive}: '{member.name}' is a link, a device or leads out of the folder; get it elsewhere")
    if "\0" in member.name or member.issparse() or member.size < 0:
        raise PipelineError(f"{archive}: '{member.name}' has a NUL in its name, holes, or a size below 0; get it elsewhere")


def _unpack_member(
    archive: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path, folders: Sequence[tuple[str, ...]]
) -> None:
    path = PurePosixPath(member.name)
    folder = path.parts[2:-1]  # below VOCdevkit/VOC<year>
    if not member.isfile() or folder not in folders:
        return
    target = root.joinpath(*folder, path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Several archives may hold a list of the same name: the list of all is written again.
    is_list = folder in (LISTS, MASK_LISTS)
    before = target.read_bytes() if is_list and target.exists() else b""
    if target.exists() and not is_list:
        raise PipelineError(f"{archive}: '{member.name}' is there already, from another archive; get it elsewhere")
    source = tar.extractfile(member)
    assert source is not None  # `member` is a file
    with source, create(target) as file:
        file.write(before)
        shutil.copyfileobj(source, file)
