"""Files from outside, which may be anything: opened without waiting, read only when they are regular files; and JSON in them."""

import errno
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import PipelineError
from pipeline.text import flat

KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# Opening a pipe would wait; a terminal would become the process's controlling terminal.
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
MAX_MEGAPIXELS = 100.0  # of an image, unless the user says otherwise: some 1 GB while it is decoded
LARGEST = 1 << 33  # bytes of a file that is read whole: more than any list, annotations or image of a data set
_HALF_A_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


class NotRegular(OSError):
    """A path that leads to something else than a regular file."""


def open_regular(path: Path | str) -> BinaryIO:
    """The regular file `path`, or the one that a link leads to, opened for reading. Never waits.

    Raises OSError: NotRegular for a folder, a named pipe, a socket or a device, which are not opened at all; also for a name that
    no file can have.
    """
    try:
        _check_kind(os.stat(path))  # opening alone can trigger a device
        descriptor = os.open(path, FLAGS)
    except ValueError as error:  # a NUL, or half a surrogate pair
        raise OSError(errno.EINVAL, f"no file can have this name: {error}") from error
    try:
        _check_kind(os.fstat(descriptor))  # it may have been replaced by another file
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_kind(status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    kind = next((name for is_kind, name in KINDS if is_kind(status.st_mode)), "of an unknown kind")
    raise NotRegular(errno.EINVAL, f"it is {kind}, not a regular file")


def is_regular(path: Path | str) -> bool:
    """Whether `path` is, or leads to, a regular file. Never raises."""
    return os.path.isfile(path)


def check_regular(path: Path | str) -> None:
    """Raises PipelineError, naming `path`, when it leads to something else than a regular file: for readers that open it by name.

    A missing file is the reader's error.
    """
    try:
        _check_kind(os.stat(path))
    except (IsADirectoryError, NotRegular) as error:
        raise PipelineError(f"{path}: {error.strerror}; give a file") from error
    except (OSError, ValueError):
        return


def check_own_file(path: Path, folder: Path, whose: str) -> None:
    """Raises PipelineError, naming it, if `path`, in the `folder` of a model, is a link out of it or is no regular file.

    `whose` folder it is stands in the message. A missing file is no error.
    """
    target = os.path.realpath(path)
    if os.path.dirname(target) != os.path.realpath(folder):
        raise PipelineError(f"{path}: a link to {target}, out of the {whose}'s folder; put the file itself there")
    check_regular(path)


def read_regular(path: Path | str, advice: str, missing: str | None = None) -> bytes:
    """The bytes of the regular file `path`.

    Raises PipelineError, naming `path` and ending in `advice`, for one that cannot be read or has more than LARGEST bytes; for
    a missing file the message is `missing`, where given.
    """
    try:
        with open_regular(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > LARGEST:
                raise PipelineError(f"{path}: has {size} bytes, at most {LARGEST} are read; {advice}")
            return file.read()
    except FileNotFoundError as error:
        fault = f"cannot be read ({error.strerror}); {advice}" if missing is None else missing
        raise PipelineError(f"{path}: {fault}") from error
    except OSError as error:
        raise PipelineError(f"{path}: cannot be read ({error.strerror or flat(error)}); {advice}") from error
    except MemoryError as error:
        raise PipelineError(f"{path}: cannot be read (too large for the memory); {advice}") from error


def parse_json(path: Path | str, content: bytes | str, advice: str, constants: bool = False, object_hook: Callable | None = None):
    """The JSON value in `content`, the bytes or the text of the file `path`.

    `constants` allows NaN and Infinity, which JSON does not have.

    Raises PipelineError, naming `path` and ending in `advice`, for everything else: not JSON, nested too deeply, a number of
    thousands of digits, text with half of a surrogate pair, which could not be written again.
    """
    try:
        text = content if isinstance(content, str) else content.decode(json.detect_encoding(content))
        value = json.loads(text, object_hook=object_hook, parse_constant=None if constants else _refuse_constant)
        if _HALF_A_PAIR.search(text):
            _check_text(value)
    except RecursionError as error:
        raise PipelineError(f"{path}: not readable as JSON (nested too deeply); {advice}") from error
    except MemoryError as error:
        raise PipelineError(f"{path}: not readable as JSON (too large for the memory); {advice}") from error
    except ValueError as error:  # no JSON, no UTF-8, a number of too many digits
        raise PipelineError(f"{path}: not readable as JSON ({flat(error)}); {advice}") from error
    return value


def _refuse_constant(name: str):
    raise ValueError(f"{name} is no number of JSON")


def _check_text(value) -> None:
    """Raises ValueError when a text anywhere in the JSON value cannot be encoded."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            part.encode()
        elif isinstance(part, dict):
            waiting += part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
