"""Whether the locks of a cache's file system reach from one host to another: the same command on both, one after the other."""

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from . import locks
from .artefacts import LOCKS
from .places import cache_folder, open_plain
from .storage import write_file

PROBE, ANSWER, UNFINISHED = "probe.lock", "probe.answer", "probe.answer.part"
LOOK_EVERY = 0.2  # seconds
HARMLESS = "two hosts may make the same result twice, but every result is whole"


def check_locks(cache: Path, seconds: float, say: Callable[[str], None]) -> bool:
    """Says whether locks work, and returns it. One host holds a lock for `seconds`, another looks for it."""
    folder = cache_folder(cache, LOCKS)
    path, answer, here = folder / PROBE, folder / ANSWER, socket.gethostname()
    os.listdir(folder)  # so that a file server is asked
    if path.exists() and time.time() - path.stat().st_mtime < seconds:
        holder, works = _text(path), locks.is_held(path)
        write_file(folder / UNFINISHED, f"{here} {'sees' if works else 'does not see'} it")
        os.replace(folder / UNFINISHED, answer)  # the other host never reads half of an answer
        say(f"{holder} holds a lock; {here} {'sees it: locks work' if works else f'does not see it: {HARMLESS}'}")
        return works
    with locks.held(path, wait=False):
        if not locks.is_held(path):
            say(f"{here} does not see its own lock: locks do nothing on this file system; {HARMLESS}")
            return False
        say(f"{here} holds a lock and sees it; give the same command on another host within {seconds:g} seconds")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            os.listdir(folder)
            if answer.exists():
                text = _text(answer)
                answer.unlink()
                say(text)
                return " sees " in text
            time.sleep(LOOK_EVERY)
    say("no other host has looked")
    return True


def _text(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError), open(open_plain(path, os.O_RDONLY), errors="replace") as file:
        return file.read(locks.LONGEST_NAME)
    return "a process that has just ended"
