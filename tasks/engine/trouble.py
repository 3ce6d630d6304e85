"""What a stage cannot help, told in a line: a full disk, too little memory, a damaged artefact, a process that was killed."""

import contextlib
import errno
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import luigi

from pipeline.errors import ChangedFile, PipelineError
from pipeline.files.writing import ADVICE, DamagedFile, StorageError
from pipeline.text import flat
from tasks.engine.artefacts import Artefact, DamagedArtefact, artefact_folder, put_aside
from tasks.engine.manifest import read_manifest
from tasks.readable import why_unreadable

logger = logging.getLogger("luigi-interface")  # whose filter words errors for the user: see `tasks.console.log`

# Told of whatever file the system means; other errors of the system only when they are about the cache.
OF_ANY_FILE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
NO_MEMORY = "can't allocate memory"


@contextlib.contextmanager
def told_in_a_line(task) -> Iterator[None]:
    """Turns what `task` cannot help into a PipelineError; puts a damaged artefact that it read aside."""
    cache = Path(task.cache_dir)
    try:
        yield
    except DamagedArtefact:
        raise
    except ChangedFile as error:
        check_file(cache, error.path)  # it may be one of a data set that a stage made
        raise
    except DamagedFile as error:
        if not why_unreadable(error.path):
            raise  # the file is right: what went wrong may be a fault of ours
        raise PipelineError(f"{error}; {put_aside(cache, error.path, is_unreadable=True)}") from error
    except OSError as error:
        where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
        in_cache = where and Path(os.path.abspath(where)).is_relative_to(os.path.abspath(cache))
        if error.errno in OF_ANY_FILE or (error.errno in ADVICE and (in_cache or not where)):
            raise StorageError(f"{where or task.artefact}: {os.strerror(error.errno)}; {ADVICE[error.errno]}") from error
        raise
    except MemoryError as error:
        raise PipelineError(f"{task.artefact}: not enough memory ({error}); {memory_advice(task)}") from error
    except RuntimeError as error:
        if NO_MEMORY in str(error) or type(error).__name__ == "OutOfMemoryError":  # torch's, on a CPU and on a GPU
            raise PipelineError(f"{task.artefact}: not enough memory ({flat(error)}); {memory_advice(task)}") from error
        raise


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
    error = PipelineError(f"its process was ended by {name}{likely}: {memory_advice(task)}")
    logger.error("%s", task, exc_info=(type(error), error, None))
