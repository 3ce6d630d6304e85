"""The cores of a host, shared out among the stages that run on it with one cache: a lock file a core.

Locks and not a Luigi resource, which would be one for all the hosts that share a scheduler.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from . import locks
from .places import cache_folder
from .processes import available_cores
from .workshop import LOCKS

CORES = "cores-"  # how the names of their locks begin
PATIENCE = 30.0  # seconds that a stage waits for cores without a word: the next shard always waits for the one before


@contextlib.contextmanager
def held_cores(cache: Path, least: int, most: int, on_wait: Callable[[str], None]) -> Iterator[list[int]]:
    """Holds at least `least` of this host's cores, and as many more as are free, up to `most`; yields their numbers.

    `on_wait(holder)` is called once when that takes longer than `PATIENCE`.
    """
    total = available_cores()
    # In the cache and not in the folder for temporary files, where anyone could put a link in the place of a lock.
    stem = f"{CORES}{socket.gethostname()}"
    folder = cache_folder(cache, LOCKS)
    cores = [folder / f"{stem}-{number}.lock" for number in range(total)]
    gate = folder / f"{stem}.lock"
    with locks.some_held(cores, gate, min(least, total), min(most, total), on_wait=on_wait, tell_after=PATIENCE) as mine:
        yield [cores.index(path) for path in mine]
