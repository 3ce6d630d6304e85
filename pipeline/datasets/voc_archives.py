"""The archives of PASCAL VOC 2007 and 2012: where they are, their checksums, and unpacking them into a folder in VOC's layout.

Several archives unpacked into one folder are one data set: their images have different names, and a list of the same name in
several of them (`trainval` of 2007 and of 2012) becomes the list of all.
"""

import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from pipeline.errors import PipelineError
from pipeline.files.reading import open_regular
from pipeline.files.writing import create
from pipeline.text import flat, shown

URL = "https://thor.robots.ox.ac.uk/pascal/VOC/"
LISTS = ("ImageSets", "Main")
LONGEST_READ = 1 << 24  # bytes that are read at once: a header that claims more is not a header
FOLDERS = (("Annotations",), ("JPEGImages",), LISTS)


class Archive(NamedTuple):
    """One archive: `name` is the file's, `folder` where the official server has it."""

    name: str
    folder: str
    md5: str

    def urls(self, mirrors: Sequence[str]) -> list[str]:
        """Its addresses: in each of `mirrors`, then the official one."""
        return [*(f"{mirror.rstrip('/')}/{self.name}" for mirror in mirrors), f"{URL}{self.folder}/{self.name}"]


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


def archives_of(name: str) -> tuple[Archive, ...]:
    """The archives that make the data set `name`. Raises PipelineError for an unknown data set."""
    if name not in DATA_SETS:
        raise PipelineError(f"--dataset {name}: not a data set to download; there are {', '.join(DATA_SETS)}")
    return DATA_SETS[name]


def unpack(archive: Path, root: Path) -> None:
    """Writes what detection needs of the tar file `archive` (VOCdevkit/VOC<year>/...) into the new or growing folder `root`.

    Nothing in the archive decides where a file goes but plain names below FOLDERS: no owner, mode or link is taken over, so that
    the safety of `tarfile` does not matter. Raises PipelineError, naming the member, for one that is neither file nor folder,
    whose path leads out or is none, whose content has holes, or that is there already; and for an archive that cannot be read.
    """
    member = None
    try:
        # `tarfile` only reads here; its types want a file that can also write.
        with open_regular(archive) as file, tarfile.open(archive, "r:", fileobj=_Bounded(file)) as tar:  # type: ignore[call-overload]
            last = -1
            for member in tar:
                if member.offset <= last:  # a negative size leads back to a member that was read, and reading would never end
                    raise PipelineError(f"{archive}: behind {shown(member.name)} it leads back; get it elsewhere")
                last = member.offset
                _unpack_member(archive, tar, member, root)
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


def _unpack_member(archive: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise PipelineError(f"{archive}: '{member.name}' is a link, a device or leads out of the folder; get it elsewhere")
    if "\0" in member.name or member.issparse() or member.size < 0:
        raise PipelineError(f"{archive}: '{member.name}' has a NUL in its name, holes, or a size below 0; get it elsewhere")
    folder = path.parts[2:-1]  # below VOCdevkit/VOC<year>
    if not member.isfile() or folder not in FOLDERS:
        return
    target = root.joinpath(*folder, path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Several archives may hold a list of the same name: the list of all is written again.
    before = target.read_bytes() if folder == LISTS and target.exists() else b""
    if target.exists() and folder != LISTS:
        raise PipelineError(f"{archive}: '{member.name}' is there already, from another archive; get it elsewhere")
    source = tar.extractfile(member)
    assert source is not None  # `member` is a file
    with source, create(target) as file:
        file.write(before)
        shutil.copyfileobj(source, file)
