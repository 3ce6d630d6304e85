"""Waiting until this host sees what another host has made: a file server may show a new folder only after a while (NFS: 60 s)."""

import contextlib
import os
import time
from pathlib import Path

LOOK_EVERY = 0.5  # seconds


def is_seen(task, seconds: float) -> bool:
    """Whether `task` is complete, perhaps only after some of the `seconds`."""
    deadline = time.monotonic() + seconds
    while not task.complete():
        if time.monotonic() >= deadline:
            return False
        _list_folders(task)
        time.sleep(min(LOOK_EVERY, seconds))
    return True


def wait_for_inputs(task, seconds: float) -> bool:
    """Whether this host sees the results of all tasks that `task` requires, perhaps only after some of the `seconds`."""
    deadline = time.monotonic() + seconds
    return all(is_seen(required, deadline - time.monotonic()) for required in task.deps())


def _list_folders(task) -> None:
    """Lists the folders in which the result of `task` will appear: then the system asks the file server again."""
    cache = Path(getattr(task, "cache_dir", "."))
    for folder in (cache, cache / getattr(task, "stage", "")):
        with contextlib.suppress(OSError):
            os.listdir(folder)
