"""Arrays in .npz files that may be damaged or hostile: memory is allocated only where the file can hold what it declares.

An .npz file is a zip archive of .npy files. A megabyte of it can declare terabytes in three places: a member's size, a header's
length, an array's shape. A stored member has its size in the file; deflate makes at most 1032 bytes of one; members do
not share bytes; an array is not longer than its member.
"""

import contextlib
import io
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError
from pipeline.files.reading import open_regular
from pipeline.text import flat, shown

SUFFIX = ".npy"
DEFLATE = 1032  # zlib's greatest ratio (zlib.net, "Technical Details")
HEADER = 1 << 16  # bytes of a member in which its header ends: ours take 128
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load_arrays(path: Path | str, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays `names`, or all, of the .npz file `path`, by name.

    Nothing in the file is run: an array of Python objects is refused. Raises OSError where the file cannot be read, and
    ValueError, which says what is wrong with which array and leaves the file's name to the caller.
    """
    with open_archive(path) as archive:
        members = check_members(archive)
        if missing := [name for name in names or () if name not in members]:
            raise ValueError(f"has no array {', '.join(missing)}, but {shown(list(members))}")
        chosen = members if names is None else {name: members[name] for name in names}
        for name, member in chosen.items():
            read_header(archive, name, member)
        return {name: _read(archive, name, member) for name, member in chosen.items()}


def load_columns(path: Path | str, columns: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """The arrays `columns` of the .npz file `path`: of each the kind of its type and its shape after the first side.

    Raises PipelineError, naming the file, when it is damaged or an array is of another kind.
    """
    try:
        arrays = load_arrays(path, tuple(columns))
        for name, (kind, inner) in columns.items():
            array = arrays[name]
            if array.dtype.kind != kind or array.ndim != 1 + len(inner) or array.shape[1:] != inner:
                raise ValueError(f"{name} of {array.dtype} {list(array.shape)}")
    except (OSError, ValueError) as error:
        raise PipelineError(f"{path}: not a whole file of {', '.join(columns)} ({flat(error)}); make it anew") from error
    return arrays


@contextlib.contextmanager
def open_archive(path: Path | str) -> Iterator[zipfile.ZipFile]:
    """The .npz file `path` as the zip archive that it is. Whatever a reader raises in the block is an OSError or a ValueError."""
    with open_regular(path) as file:
        try:
            yield zipfile.ZipFile(file)
        except MemoryError as error:
            raise ValueError("is too large for the memory") from error
        except OSError:
            raise
        except Exception as error:  # zipfile, zlib and NumPy raise all kinds for a damaged file
            raise ValueError(flat(error)) from error


def check_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members that hold arrays, by the arrays' names. Raises ValueError when their sizes cannot be those of the file."""
    assert archive.fp is not None  # it is open
    size, members = os.fstat(archive.fp.fileno()).st_size, {}
    for member in archive.infolist():
        name = member.filename.removesuffix(SUFFIX)
        if member.filename == name:
            continue
        if name in members:
            raise ValueError(f"has the array {shown(name)} twice")
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"array {shown(name)} is encrypted or compressed in another way than deflate")
        most = member.compress_size * (1 if member.compress_type == zipfile.ZIP_STORED else DEFLATE)
        if member.file_size > most or member.compress_size > size:
            raise ValueError(f"array {shown(name)} claims {member.file_size} bytes, more than a file of {size} holds")
        members[name] = member
    if (total := sum(member.compress_size for member in members.values())) > size:
        raise ValueError(f"its arrays claim {total} bytes of a file of {size}")
    return members


def read_header(archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array in `member`. Raises ValueError when it is of Python objects or larger than the member."""
    with archive.open(member) as file:
        start = io.BytesIO(file.read(HEADER))
    version = np.lib.format.read_magic(start)
    if version not in READERS:
        raise ValueError(f"array {shown(name)} is of version {version} of NumPy's format, which is not read")
    shape, _, dtype = READERS[version](start)
    if dtype.hasobject:
        raise ValueError(f"array {shown(name)}: Object arrays cannot be loaded (allow_pickle=False)")
    count, held = math.prod(shape), member.file_size - start.tell()
    # Elements of 0 bytes could be claimed without limit.
    if min(shape, default=0) < 0 or count * max(dtype.itemsize, 1) > held:
        raise ValueError(f"array {shown(name)} claims the shape {shown(shape)} of {dtype.itemsize} bytes each, it holds {held}")
    return shape, dtype


def _read(archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):  # at the end, and only there, its checksum is compared
            raise ValueError(f"array {shown(name)} is followed by bytes that are none of its")
    return array
