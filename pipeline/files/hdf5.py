"""HDF5 files of our stores: written so that nothing is lost without an error, and read without trusting them.

h5py loses HDF5's errors when it frees a Python object: chunks that could not be flushed then read as zeros, and no checksum
shows it, since there is no chunk. So a `StoreWriter` holds its data sets open, flushes them itself, digests the values that it
gets and compares them with what a reader gets. A reader refuses a file with missing chunks, and one that leads to other files.
"""

import contextlib
import errno
import math
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.errors import DamagedFile, PipelineError
from pipeline.files.writing import WriteError, cannot_write, error_number, lost, new_digest

# HDF5 1.10's, of 2016, which every tool still in use reads. "latest" would change with h5py's library: 1.10 cannot read 2.0's.
HDF5_FORMAT = ("v110", "v110")
BLOCK_BYTES = 8 << 20  # that are compared at once
GZIP_LEVEL = 1  # of zlib; level 4 makes features 5 % smaller and takes twice as long to write
# zlib makes at most 1032 bytes of one (zlib.net/zlib_tech.html). A file that says more is refused before memory is asked for.
MOST_INFLATED = 1032
LARGEST_CHUNK = 64 << 20  # a chunk is read and inflated as a whole; ours have a megabyte, or one row
# The system refuses to read: that says nothing about the file.
NO_DAMAGE = (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOMEM)
READ_ERRORS = (OSError, KeyError, RuntimeError, UnicodeDecodeError, ValueError, TypeError)


class StoreWriter:
    """Writes one new HDF5 file.

    Every method raises WriteError, naming the file, when the system refuses to write; the file is gone then.
    """

    def __init__(self, path: Path, attributes: Mapping):
        self.path = Path(path)
        self._file: Any = None  # an h5py.File: h5py has no types
        self._sets: dict[str, h5py.Dataset] = {}
        self._waiting: dict[str, list[np.ndarray]] = {}  # rows of compressed data sets that fill no chunk yet
        self._digests: dict[str, Any] = {}
        with self._whole_or_nothing():
            self.path.unlink(missing_ok=True)  # perhaps a link, through which HDF5 would write
            self._file = h5py.File(path, "x", libver=HDF5_FORMAT)
            for name, value in attributes.items():
                self._file.attrs[name] = value

    def add(self, name: str, dtype, shape: tuple[int, ...], chunk_rows: int, is_compressed: bool = False) -> None:
        """A data set of rows of `shape`, without rows yet; each chunk of `chunk_rows` rows has a checksum.

        It is compressed by HDF5's own filters, shuffle and gzip, if `is_compressed`.
        """
        options = {"compression": "gzip", "compression_opts": GZIP_LEVEL, "shuffle": True} if is_compressed else {}
        with self._whole_or_nothing():
            self._sets[name] = self._file.create_dataset(
                name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(chunk_rows, *shape), fletcher32=True, **options
            )
            self._digests[name] = new_digest()
            if options:
                self._waiting[name] = []

    def append(self, name: str, rows: np.ndarray, flush: bool = True) -> None:
        """Adds `rows` to the data set `name`; with `flush` they are flushed before it returns.

        Compressed rows wait until they fill a chunk. A chunk that grows would be compressed anew, and leave a hole, each time.
        """
        with self._whole_or_nothing():
            data = self._sets[name]
            rows = np.ascontiguousarray(rows, data.dtype)
            self._digests[name].update(rows)
            if name in self._waiting:
                self._waiting[name].append(rows)
                if sum(map(len, self._waiting[name])) < data.chunks[0]:
                    return
                rows = np.concatenate(self._waiting[name])
                whole = len(rows) - len(rows) % data.chunks[0]
                self._waiting[name], rows = [rows[whole:].copy()], rows[:whole]
            self._write(data, rows, flush)

    @staticmethod
    def _write(data: h5py.Dataset, rows: np.ndarray, flush: bool) -> None:
        first = len(data)
        data.resize(first + len(rows), axis=0)
        data[first:] = rows
        if flush:
            data.flush()

    def put(self, name: str, values: np.ndarray, checksum: bool = False) -> None:
        """A data set that is written at once; with `checksum` in one chunk that has a checksum."""
        with self._whole_or_nothing():
            options = {"chunks": values.shape, "fletcher32": True} if checksum else {}
            self._file.create_dataset(name, data=values, **options).flush()
            self._digests[name] = _digest_of(values)

    def put_texts(self, name: str, texts: list[str]) -> None:
        """A data set of UTF-8 texts."""
        self.put(name, np.array([text.encode() for text in texts], h5py.string_dtype()))

    def close(self) -> None:
        """Completes the file and compares it with what was given."""
        with self._whole_or_nothing():
            for name, rows in self._waiting.items():
                if sum(map(len, rows)):
                    self._write(self._sets[name], np.concatenate(rows), flush=True)
            self._file.flush()
            self._file.close()
            with _open(self.path) as file:
                for name, digest in self._digests.items():
                    if name not in file or _digest_stored(file[name]) != digest.digest():
                        raise lost(self.path)

    @contextlib.contextmanager
    def _whole_or_nothing(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.abandon()
            if isinstance(error, (OSError, RuntimeError)) and not isinstance(error, WriteError):
                raise cannot_write(self.path, error, error_number(error)) from error
            raise

    def abandon(self) -> None:
        """Closes and removes the file, whatever the disk says.

        HDF5 holds on to what it could not write, tries again when the process ends, and crashes if it fails again. So the file's
        descriptor is first replaced by that of a null device.
        """
        if self._file:
            with contextlib.suppress(OSError, RuntimeError):
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, self._file.id.get_vfd_handle())
                os.close(nowhere)
            with contextlib.suppress(OSError, RuntimeError):
                self._file.close()
        self.path.unlink(missing_ok=True)


def enter_writer(writer):
    """`__enter__` of the writers of stores: a block that fails leaves no file."""
    return writer


def exit_writer(writer, kind, error, traceback) -> None:
    """`__exit__` of the writers of stores."""
    if kind:
        writer.abandon()
    else:
        writer.close()


def _digest_of(values: np.ndarray):
    digest = new_digest()
    digest.update(repr(values.tolist()).encode() if values.dtype.hasobject else np.ascontiguousarray(values))
    return digest


def _digest_stored(data: h5py.Dataset) -> bytes:
    """The digest of all values of a data set, read in blocks of whole chunks."""
    if data.dtype.hasobject:
        return _digest_of(data[:]).digest()
    digest = new_digest()
    chunk = data.chunks[0] if data.chunks else len(data) or 1
    row = data.dtype.itemsize * math.prod(data.shape[1:])
    rows = chunk * max(1, BLOCK_BYTES // (chunk * row or 1))
    for first in range(0, len(data), rows):
        digest.update(data[first : first + rows])
    return digest.digest()


@lru_cache(maxsize=64)
def opened(path: Path) -> h5py.File:
    """The file of a store, open for reading. Raises DamagedFile, naming it, when it is not a whole store of our own."""
    with explained(path):
        return _open(path)


def _open(path: Path) -> h5py.File:
    file = h5py.File(path, "r")
    try:
        for name in file:
            _check_data_set(file, name, os.path.getsize(path))
    except BaseException:
        file.close()
        raise
    return file


def _check_data_set(file: h5py.File, name: str, file_size: int) -> None:
    """Raises OSError unless the data set lies in the file itself, all of it: what is not there would read as zeros."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise OSError(f"{name!r} is a link")
    data = file[name]
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        raise OSError(f"{name!r} is no data set of this file")
    if data.compression not in (None, "gzip") or data.scaleoffset is not None:
        raise OSError(f"{name!r} is compressed in another way than gzip")
    size, stored = data.id.get_type().get_size() * data.size, data.id.get_storage_size()
    least = size
    if data.compression:
        if math.prod(data.chunks) * data.dtype.itemsize > LARGEST_CHUNK:
            raise OSError(f"{name!r} has compressed chunks of more than {LARGEST_CHUNK} bytes")
        least = size // MOST_INFLATED
    if data.chunks:
        chunks = math.prod(-(-length // chunk) for length, chunk in zip(data.shape, data.chunks))
        missing = chunks - data.id.get_num_chunks()
        if missing:
            raise OSError(f"{missing} of {chunks} chunks of {name!r} are missing")
    if not least <= stored <= file_size:
        raise OSError(f"{name!r} says that it has {size} bytes, of which {stored} are in the file of {file_size}")


def check_store(path: Path) -> None:
    """Raises DamagedFile, naming `path`, when it is not a whole store, or one of its columns cannot be read.

    The largest, features or cells, is not read: of their chunks it is enough to know that they are there.
    """
    with explained(path), _open(path) as file:
        if "image_ids" not in file:
            raise OSError("it has no 'image_ids', which are written last")
        columns = sorted(file.values(), key=lambda data: data.size * data.dtype.itemsize)
        for data in columns[:-1]:
            _digest_stored(data)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns HDF5's errors into one that names the file: DamagedFile, or OSError where the system refuses to read it."""
    try:
        yield
    except READ_ERRORS as error:
        if isinstance(error, PipelineError):  # explained already
            raise
        if (number := error_number(error)) in NO_DAMAGE:
            raise OSError(number, os.strerror(number), str(path)) from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DamagedFile(path, f"{path}: not an intact store ({reason})") from error
