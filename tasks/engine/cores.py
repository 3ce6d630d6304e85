"""The cores of a host, shared among the stages that run on it with one cache: one lock file per core.

A Luigi resource cannot do this: it would count the cores of all hosts that share a scheduler together.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from . import locks
from .places import cache_folder
from .processes import available_cores
from .workshop import LOCKS

CORES = "cores-"  # the names of these locks begin so
PATIENCE = 30.0  # seconds to wait for cores before a message: with shards, the next one always waits for the one before


@contextlib.contextmanager
def held_cores(cache: Path, least: int, most: int, on_wait: Callable[[str], None]) -> Iterator[list[int]]:
    """Holds at least `least` of this host's cores, and as many more as are free, up to `most`; yields their numbers.

    `on_wait(holder)` is called once when that takes longer than `PATIENCE`.
    """
    total = available_cores()
    # The locks are in the cache: in the folder for temporary files, anyone could replace a lock by a link.
    stem = f"{CORES}{socket.gethostname()}"
    folder = cache_folder(cache, LOCKS)
    cores = [folder / f"{stem}-{number}.lock" for number in range(total)]
    gate = folder / f"{stem}.lock"
    with locks.some_held(
        cores, gate, min(least, total), min(most, total), on_wait=on_wait, tell_after=PATIENCE
    ) as held_paths:
        yield [cores.index(path) for path in held_paths]
