"""What a stage cannot help, told in a line: a full disk, too little memory, a damaged artefact, a process that was killed."""

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

logger = logging.getLogger("luigi-interface")  # to which Luigi writes of failed tasks

# Told of whatever file the system means; other errors of the system only when they are about the cache.
OF_ANY_FILE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
NO_MEMORY = "can't allocate memory"  # torch's words on a CPU
LONGEST = 300  # characters of a library's message


@contextlib.contextmanager
def told_in_a_line(task) -> Iterator[None]:
    """Turns what `task` cannot help into a UserError; puts a damaged artefact that it read aside."""
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
    """Raises DamagedArtefact or UserError when an artefact's file at `path`, of which `error` speaks, is damaged."""
    cache = Path(task.cache_dir)
    check_file(cache, path)
    if why_unreadable(path, task.file_checks):
        raise UserError(f"{error}; {put_aside(cache, path, is_unreadable=True)}") from error


def _storage_line(task, error: OSError) -> str:
    """What to tell of an error of the file system; empty where it may be a bug."""
    where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
    in_cache = where and Path(os.path.abspath(where)).is_relative_to(os.path.abspath(task.cache_dir))
    is_of_cache = (in_cache or not where) and error.errno in ADVICE
    is_told = error.errno in OF_ANY_FILE or is_of_cache or isinstance(error, task.storage_errors)
    return f"{where or task.artefact}: {error.strerror}; {ADVICE.get(error.errno or 0, UNKNOWN)}" if is_told else ""


def check_file(cache: Path, path: Path) -> None:
    """Raises DamagedArtefact when `path` lies in an artefact of `cache` and is not the file that its manifest tells of."""
    if (folder := artefact_folder(cache, path)) and (manifest := read_manifest(folder)):
        name = Path(os.path.abspath(path)).relative_to(os.path.abspath(folder)).as_posix()
        Artefact(cache, folder.parent.name, manifest["key"]).path(name)


def memory_advice(task) -> str:
    """Which settings make a stage need less memory."""
    settings = [f"--{name.replace('_', '-')}" for name in getattr(task, "memory_settings", ())]
    lower = f", or lower {' or '.join(settings)}" if settings else ""
    return f"free some memory, run one stage at a time with --workers 1{lower}; the same command goes on from here"


def set_up() -> None:
    """Has Luigi tell of processes that died."""
    luigi.Task.event_handler(luigi.Event.PROCESS_FAILURE)(tell_of_death)


def tell_of_death(task, message: str) -> None:
    """What Luigi calls when a process that ran `task` died: `message` ends with its exit code, negative for a signal."""
    code = message.rpartition(" ")[2]
    number = -int(code) if code.lstrip("-").isdigit() else 0
    name = signal.Signals(number).name if number in signal.valid_signals() else f"exit code {code}"
    likely = ", most likely by the system, for want of memory" if number == signal.SIGKILL else ""
    error = UserError(f"its process was ended by {name}{likely}: {memory_advice(task)}")
    logger.error("%s", task, exc_info=(type(error), error, None))
