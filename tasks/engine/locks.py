"""Lock files: one per key, so that the second of two builders of an artefact waits; one per core, to share a host's cores.

The kernel releases a lock when its holder dies, for whatever reason. The file names the holder, for messages to those who wait.
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
LONGEST_NAME = 200  # characters of the holder's name


class _Patience:
    """Waits for locks of others, and calls `on_wait(holder)` once after `tell_after` seconds."""

    def __init__(self, on_wait: Callable[[str], None], tell_after: float = 0.0):
        self.on_wait, self.tell_at = on_wait, time.monotonic() + tell_after

    def wait_for(self, path: Path) -> None:
        if time.monotonic() >= self.tell_at:
            self.tell_at = math.inf
            self.on_wait(_holder(path))
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def held(path: Path, wait: bool = True, on_wait: Callable[[str], None] = lambda holder: None) -> Iterator[bool]:
    """Holds the lock file `path`; yields whether it is held, which is always so with `wait`.

    While another process holds it, `on_wait(holder)` is called once with the name of that process.
    """
    with _held(path, _Patience(on_wait) if wait else None) as is_held_here:
        yield is_held_here


@contextlib.contextmanager
def some_held(
    paths: Sequence[Path], gate: Path, least: int, most: int, *, on_wait: Callable[[str], None] = lambda holder: None,
    tell_after: float = 0.0,
) -> Iterator[list[Path]]:
    """Holds at least `least` of the lock files `paths`, and as many more as are free, up to `most`; yields their paths.

    One process at a time collects locks, the holder of the lock file `gate`: two processes with half of the locks each would wait
    for each other forever. `on_wait(holder)` is called once as in `held`, but only after `tell_after` seconds.
    """
    patience = _Patience(on_wait, tell_after)
    with contextlib.ExitStack() as stack:
        held_paths: list[Path] = []
        with _held(gate, patience):
            while True:
                for path in paths:
                    if len(held_paths) < most and path not in held_paths and stack.enter_context(_held(path, None)):
                        held_paths.append(path)
                if len(held_paths) >= least:
                    break
                patience.wait_for(next(path for path in paths if path not in held_paths))
        yield held_paths


@contextlib.contextmanager
def _held(path: Path, patience: _Patience | None) -> Iterator[bool]:
    descriptor = _acquire(path, patience)
    if descriptor is None:
        yield False
        return
    try:
        with contextlib.suppress(OSError):  # on a full disk the file cannot name its holder
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield True
    finally:
        # The file is removed while it is still locked: a process that has opened it sees that it is gone, and starts over.
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
        return "another process"  # it has just released the lock


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the open file: its last holder may have removed it in the meantime."""
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def is_held(path: Path) -> bool:
    """Whether any process holds the lock file `path`."""
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
