"""Files that are written once: what was given is compared with what a reader gets, before anyone relies on it.

A disk that is full for a moment, a quota or a broken network folder can lose part of a file, and not every library reports it.
`create` digests what it is given, reads the finished file again and compares. A file that fails is removed. All files of
artefacts are written by it, but for HDF5's: see `pipeline.files.hdf5`.
"""

import contextlib
import errno
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import xxhash

BLOCK = 1 << 20


class WriteError(OSError):
    """The system refuses to write a file, or loses what was written: see `errno`, `strerror` and `filename`."""


def cannot_write(path: Path | str, error: Exception, number: int | None = None) -> WriteError:
    """The error for `path`: what the system says (its error `number`, if not that of `error`)."""
    number = number or getattr(error, "errno", None)
    reason = os.strerror(number) if number else str(error).partition("\n")[0]
    return WriteError(number or errno.EIO, f"cannot be written: {reason}", str(path))


@contextlib.contextmanager
def create(path: Path | str) -> Iterator[BinaryIO]:
    """A new binary file at `path`, to be written in order; whole when the block ends, otherwise removed.

    A file or link that is there is replaced: no link is followed. Raises WriteError, naming `path`, when the system refuses a
    byte or a reader gets other bytes.
    """
    path = Path(path)
    try:
        path.unlink(missing_ok=True)
        raw = _Digested(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        with io.BufferedWriter(raw, BLOCK) as file:
            yield file
        compare(path, raw.digest.digest())
    except BaseException:
        with contextlib.suppress(OSError):
            raw.close()
        path.unlink(missing_ok=True)
        raise


def write_file(path: Path | str, content: bytes | memoryview | str) -> None:
    """Writes the new file `path`; text as UTF-8. Raises as `create`."""
    with create(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_arrays(path: Path | str, arrays: Mapping) -> None:
    """Writes the new .npz file `path`. Equal arrays give equal bytes: the file holds no time. Raises as `create`."""
    import numpy as np  # not above: what uses the cache without computing starts quickly

    content = io.BytesIO()
    np.savez(content, **arrays)
    write_file(path, content.getbuffer())


def write_tensors(path: Path, tensors: Mapping, metadata: dict[str, str] | None = None) -> None:
    """Writes the new safetensors file `path`. Raises as `create`. Takes no further memory: the tensors may be gigabytes."""
    import torch
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    try:
        path.unlink(missing_ok=True)
        save_file(dict(tensors), path, metadata)
        with safe_open(path, "pt") as file:
            for name, value in tensors.items():
                if not torch.equal(*(tensor.reshape(-1).view(torch.uint8) for tensor in (value, file.get_tensor(name)))):
                    raise lost(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        if isinstance(error, (OSError, SafetensorError)) and not isinstance(error, WriteError):
            raise cannot_write(path, error, error_number(error)) from error
        raise


def error_number(error: Exception) -> int | None:
    """The system's error number; of a library's error as its text gives it: "os error 28", or "errno = 28"."""
    match = re.search(r"(?:errno = |os error )(\d+)", str(error))
    return getattr(error, "errno", None) or (int(match[1]) if match else None)


def write_image(path: Path, image, **options) -> None:
    """Writes the new image file `path` in the format of its suffix.

    `image` is Pillow's, `options` are those of its `save`. Raises as `create`.
    """
    from PIL import Image

    content = io.BytesIO()
    image.save(content, Image.registered_extensions()[path.suffix.lower()], **options)
    write_file(path, content.getbuffer())


def copy_file(source: Path, target: Path) -> None:
    """Writes the content of the file `source` to the new file `target`. Raises as `create`."""
    with open(source, "rb") as given, create(target) as file:
        while block := given.read(BLOCK):
            file.write(block)


def compare(path: Path, expected: bytes) -> None:
    """Raises WriteError unless the file `path` has the digest `expected`, as `new_digest` makes it."""
    digest = new_digest()
    try:
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise lost(path) from error
    if digest.digest() != expected:
        raise lost(path)


def lost(path: Path) -> WriteError:
    """The error for a file whose content is not what was written."""
    reason = "what was written cannot be read back; the disk was full for a moment, or fails"
    return WriteError(errno.EIO, reason, str(path))


def new_digest():
    """XXH3 of 128 bits: it detects every accident, and is several times as fast as SHA-256."""
    return xxhash.xxh3_128()


class _Digested(io.FileIO):
    """A new file that digests what is written to it."""

    def __init__(self, path: Path):
        super().__init__(path, "x")
        self.digest = new_digest()

    def write(self, data) -> int:
        try:
            count = super().write(data)
        except OSError as error:  # distinguishes it from errors of what is read meanwhile
            raise cannot_write(self.name, error) from error
        self.digest.update(memoryview(data).cast("B")[:count])
        return count

    def seekable(self) -> bool:
        return False  # what was written stays
