"""One lock file a key, so that of two builders of one artefact the second waits; and one a core, to share out a host's.

The kernel drops the lock when its holder dies, however it dies. The file says who holds it, for the message to whoever waits.
"""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

POLL_SECONDS = 0.2


@contextlib.contextmanager
def held(path: Path, wait: bool = True, on_wait=lambda holder: None) -> Iterator[bool]:
    """Holds the lock file `path`; yields whether it is held (always, with `wait`).

    While another process holds it, `on_wait(holder)` is called once with what the file says of that process.
    """
    descriptor = _acquire(path, wait, on_wait)
    if descriptor is None:
        yield False
        return
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield True
    finally:
        # Removed while still locked: whoever opened the file before sees that it is gone and starts over.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(descriptor)


@contextlib.contextmanager
def some_held(
    paths: Sequence[Path], gate: Path, least: int, most: int, on_wait=lambda holder: None
) -> Iterator[list[Path]]:
    """Holds at least `least` of the lock files `paths`, and as many more as are free, up to `most`; yields which.

    Who holds the lock file `gate` collects them, one process at a time: two that had half of them each would wait forever.
    `on_wait(holder)` is called as in `held`: for the gate, and for the paths.
    """
    with contextlib.ExitStack() as stack:
        mine, told = [], False
        with held(gate, on_wait=on_wait):
            while True:
                for path in paths:
                    if len(mine) < most and path not in mine and stack.enter_context(held(path, wait=False)):
                        mine.append(path)
                if len(mine) >= least:
                    break
                if not told:
                    told = True
                    on_wait(_holder(next(path for path in paths if path not in mine)))
                time.sleep(POLL_SECONDS)
        yield mine


def _acquire(path: Path, wait: bool, on_wait) -> int | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(descriptor, path):
                return descriptor
        except BlockingIOError:
            if not wait:
                os.close(descriptor)
                return None
            if not told:
                told = True
                on_wait(_holder(path))
            time.sleep(POLL_SECONDS)
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        return path.read_text(errors="replace") or "another process"
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
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
