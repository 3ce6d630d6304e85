"""Troubles that are no bugs, reported in one line: a full disk, too little memory, a damaged artefact, a killed process."""

import contextlib
import errno
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import luigi

from .artefacts import Artefact, DamagedArtefact, artefact_folder, put_aside
from .errors import StorageError, UserError
from .manifest import read_manifest
from .readable import why_unreadable
from .storage import ADVICE, UNKNOWN

logger = logging.getLogger("luigi-interface")  # Luigi's own logger for failed tasks

# These errors are reported in one line for any file; other errors of the system only for files in the cache.
OF_ANY_FILE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
NO_MEMORY = "can't allocate memory"  # from torch's message on a CPU
LONGEST = 300  # characters of a library's message


@contextlib.contextmanager
def told_in_a_line(task) -> Iterator[None]:
    """Turns troubles that are no bugs of `task` into UserError; moves a damaged artefact that it read aside."""
    try:
        yield
    except DamagedArtefact:
        raise
    except task.user_errors as error:
        if path := getattr(error, "path", None):
            _look_at(task, Path(path), error)
        raise
    except OSError as error:
        if line := _storage_line(task, error):
            raise StorageError(line) from error
        raise
    except MemoryError as error:
        raise UserError(f"{task.artefact}: not enough memory ({error}); {memory_advice(task)}") from error
    except RuntimeError as error:
        if NO_MEMORY in str(error) or type(error).__name__ == "OutOfMemoryError":  # torch's, on a CPU and on a GPU
            reason = " ".join(str(error).split())[:LONGEST]
            raise UserError(f"{task.artefact}: not enough memory ({reason}); {memory_advice(task)}") from error
        raise


def _look_at(task, path: Path, error: Exception) -> None:
    """Raises DamagedArtefact or UserError when `path`, the file that `error` is about, belongs to an artefact and is damaged."""
    cache = Path(task.cache_dir)
    check_file(cache, path)
    if why_unreadable(path, task.file_checks):
        raise UserError(f"{error}; {put_aside(cache, path, is_unreadable=True)}") from error


def _storage_line(task, error: OSError) -> str:
    """The message for an error of the file system; empty if it may be a bug."""
    where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
    in_cache = where and Path(os.path.abspath(where)).is_relative_to(os.path.abspath(task.cache_dir))
    is_about_cache = (in_cache or not where) and error.errno in ADVICE
    is_no_bug = error.errno in OF_ANY_FILE or is_about_cache or isinstance(error, task.storage_errors)
    return f"{where or task.artefact}: {error.strerror}; {ADVICE.get(error.errno or 0, UNKNOWN)}" if is_no_bug else ""


def check_file(cache: Path, path: Path) -> None:
    """Raises DamagedArtefact when `path` is in an artefact of `cache` and differs from what the manifest says."""
    if (folder := artefact_folder(cache, path)) and (manifest := read_manifest(folder)):
        name = Path(os.path.abspath(path)).relative_to(os.path.abspath(folder)).as_posix()
        Artefact(cache, folder.parent.name, manifest["key"]).path(name)


def memory_advice(task) -> str:
    """Advice for the user: how a stage needs less memory."""
    settings = [f"--{name.replace('_', '-')}" for name in getattr(task, "memory_settings", ())]
    lower = f", or lower {' or '.join(settings)}" if settings else ""
    return f"free some memory, run one stage at a time with --workers 1{lower}; the same command goes on from here"


def set_up() -> None:
    """Makes Luigi report processes that died."""
    luigi.Task.event_handler(luigi.Event.PROCESS_FAILURE)(tell_of_death)


def tell_of_death(task, message: str) -> None:
    """Logs that the process of `task` died. Luigi calls this; `message` ends with the exit code, negative for a signal."""
    code = message.rpartition(" ")[2]
    number = -int(code) if code.lstrip("-").isdigit() else 0
    name = signal.Signals(number).name if number in signal.valid_signals() else f"exit code {code}"
    likely = ", most likely by the system because memory ran out" if number == signal.SIGKILL else ""
    error = UserError(f"its process was ended by {name}{likely}: {memory_advice(task)}")
    logger.error("%s", task, exc_info=(type(error), error, None))
