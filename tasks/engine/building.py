"""How a stage's artefact is built: under its lock, on cores of the host, in a work folder that becomes the artefact."""

import contextlib
import logging
import platform
import socket
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from . import read_through
from .cores import held_cores
from .digests import digest_json
from .errors import UserError
from .jobs import with_job
from .manifest import MANIFEST, read_manifest
from .memory import peak_memory, release_memory, reset_peak_memory
from .package_versions import package_versions
from .processes import limited_threads
from .trouble import told_in_a_line
from .workshop import Workshop, sweep

logger = logging.getLogger("stages")

OF_COMMAND = ("job", "remote", "remote_write")  # settings that no manifest records


def make_artefact(task) -> None:
    """Builds the artefact of `task` and moves it into place, unless another run does so first."""
    workshop = Workshop(task.artefact)

    def on_wait(holder: str) -> None:
        logger.info("%s: waiting for %s, which is building it", task.artefact, holder)

    with told_in_a_line(task):
        sweep_once(Path(task.cache_dir))
        task.has(task.artefact)  # now, since it would take the same lock
        with workshop.lock(on_wait=on_wait), task.host_cores():
            if task.complete():
                return
            if (task.artefact.folder / MANIFEST).exists() and not task.artefact.exists():
                logger.warning("%s: its manifest is damaged; it is made again", task.artefact.folder)
            try:
                workshop.open()
                _build_and_publish(task, workshop)
            finally:
                workshop.close()
        if task.remote and task.remote_write:
            read_through.give(task.artefact, task.remote)


@contextlib.contextmanager
def cores_held(task) -> Iterator[None]:
    """Holds as many of this host's cores as `task` needs. A task that does not compute needs none."""
    if not task.computes:
        yield
        return

    def on_wait(holder: str) -> None:
        logger.info("%s: waiting for cores; %s uses some of them", task.label, holder)

    least, most = task.cores_needed
    with held_cores(Path(task.cache_dir), least, most, on_wait) as cores:
        task.num_cores, task.progress_row = len(cores), int(cores[0] != 0)
        yield


def _build_and_publish(task, workshop: Workshop) -> None:
    logger.info("%s: running", task.label)
    started, clock = time.time(), time.monotonic()
    release_memory()
    reset_peak_memory()
    with limited_threads(task.num_threads) if task.computes else contextlib.nullcontext():
        figures = task.make_files(workshop) or {}
    seconds = time.monotonic() - clock
    inputs = task.key_inputs()
    if digest_json(inputs) != task.key:
        raise UserError(f"{task.label}: one of its input files changed while it ran; run again")
    workshop.publish(_manifest(task, inputs, figures, started=started, seconds=seconds))
    shown = ", ".join(f"{name.replace('_', ' ')} {_show(value)}" for name, value in figures.items() if _is_scalar(value))
    logger.info("%s: done in %.1f s%s", task.label, seconds, f" ({shown})" if shown else "")


def _manifest(task, inputs: dict, figures: dict, *, started: float, seconds: float) -> dict:
    """The manifest without the entries about the finished files."""
    return {
        "version": task.version, "parameters": inputs["parameters"], "seed": getattr(task, "seed", None),
        "settings": {name: text for name, text in sorted(task.to_str_params().items()) if name not in OF_COMMAND},
        "jobs": with_job(read_manifest(task.artefact.folder), task.job),
        "inputs": task.describe_inputs(), "outside": inputs["outside"], "started": started, "seconds": seconds,
        "peak_memory": max(peak_memory(), task.pool_memory), **task.about(), "threads": task.num_threads,
        "host": socket.gethostname(), "worker": task.worker, "platform": platform.platform(), "python": platform.python_version(),
        "packages": package_versions(task.packages), "figures": figures,
    }


def _is_scalar(value) -> bool:
    return isinstance(value, (int, float, str))


def _show(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@cache
def sweep_once(cache_dir: Path) -> None:
    sweep(cache_dir)
