"""One lock file a key, so that of two builders of one artefact the second waits; and one a core, to share out a host's.

The kernel drops the lock when its holder dies, however it dies. The file says who holds it, for the message to whoever waits.
"""

import contextlib
import fcntl
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .places import open_plain
from .storage import refused

POLL_SECONDS = 0.2
LONGEST_NAME = 200  # characters of what a lock file says of its holder


class _Patience:
    """Waits for what others hold, and tells `on_wait` of a holder once, when `tell_after` seconds are over."""

    def __init__(self, on_wait: Callable[[str], None], tell_after: float = 0.0):
        self.on_wait, self.tell_at = on_wait, time.monotonic() + tell_after

    def wait_for(self, path: Path) -> None:
        if time.monotonic() >= self.tell_at:
            self.tell_at = math.inf
            self.on_wait(_holder(path))
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def held(path: Path, wait: bool = True, on_wait: Callable[[str], None] = lambda holder: None) -> Iterator[bool]:
    """Holds the lock file `path`; yields whether it is held (always, with `wait`).

    While another process holds it, `on_wait(holder)` is called once with what the file says of that process.
    """
    with _held(path, _Patience(on_wait) if wait else None) as is_mine:
        yield is_mine


@contextlib.contextmanager
def some_held(
    paths: Sequence[Path], gate: Path, least: int, most: int, *, on_wait: Callable[[str], None] = lambda holder: None,
    tell_after: float = 0.0,
) -> Iterator[list[Path]]:
    """Holds at least `least` of the lock files `paths`, and as many more as are free, up to `most`; yields which.

    Who holds the lock file `gate` collects them, one process at a time: two that had half of them each would wait forever.
    `on_wait(holder)` is called once as in `held`, but only when `tell_after` seconds did not suffice.
    """
    patience = _Patience(on_wait, tell_after)
    with contextlib.ExitStack() as stack:
        mine: list[Path] = []
        with _held(gate, patience):
            while True:
                for path in paths:
                    if len(mine) < most and path not in mine and stack.enter_context(_held(path, None)):
                        mine.append(path)
                if len(mine) >= least:
                    break
                patience.wait_for(next(path for path in paths if path not in mine))
        yield mine


@contextlib.contextmanager
def _held(path: Path, patience: _Patience | None) -> Iterator[bool]:
    descriptor = _acquire(path, patience)
    if descriptor is None:
        yield False
        return
    try:
        with contextlib.suppress(OSError):  # on a full disk those who wait are not told for whom
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield True
    finally:
        # Removed while still locked: whoever opened the file before sees that it is gone and starts over.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(descriptor)


def _acquire(path: Path, patience: _Patience | None) -> int | None:
    while True:
        try:
            descriptor = open_plain(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise refused(path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(descriptor, path):
                return descriptor
        except BlockingIOError:
            if patience is None:
                os.close(descriptor)
                return None
            patience.wait_for(path)
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        with open(open_plain(path, os.O_RDONLY), errors="replace") as file:
            return file.read(LONGEST_NAME) or "another process"
    except FileNotFoundError:
        return "another process"  # that has just gone


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the open file: its last holder may have removed it in between."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock file `path`."""
    try:
        descriptor = open_plain(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
