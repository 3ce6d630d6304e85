"""Slow imports between two forks: the command's own process does them once, so that not every stage's process does them again."""

import gc
import importlib
import os
import threading
import time
from collections.abc import Callable

SLOW_IMPORTS = "torch", "numba"  # they take half a second or more
SOON = 2.0


def import_between_forks(is_idle: Callable[[], bool]) -> None:
    """After its first fork, this process imports what most stages need. A thread does it; the next fork waits for the thread.

    With several workers each stage runs in a new process, a fork of this one, and would take seconds to import these modules
    again. The first stage still imports them itself. A command that ends within `SOON` seconds imports none,
    nor does one that has nothing to compute: `is_idle()`.
    """
    going_on, imported = threading.Event(), threading.Event()
    thread = threading.Thread(target=_import_if_going_on, args=(going_on, imported), name="imports")

    def start():
        if thread.ident is None and not is_idle():
            importlib.import_module("h5py")  # it registers its own fork hooks, so it must not load during a fork
            thread.start()

    def finish():
        if thread.is_alive():
            going_on.set()
            imported.wait()

    os.register_at_fork(before=finish, after_in_parent=start)


def _import_if_going_on(going_on: threading.Event, imported: threading.Event) -> None:
    main, soon = threading.main_thread(), time.monotonic() + SOON
    while main.is_alive() and time.monotonic() < soon and not going_on.wait(0.1):
        pass
    try:
        if main.is_alive():
            for module in SLOW_IMPORTS:
                importlib.import_module(module)
            from numba.core.registry import cpu_target

            cpu_target.typing_context.refresh()  # what numba's first compiled function would do
            cpu_target.target_context.refresh()
            gc.freeze()  # so that garbage collection in the forks skips these objects
    finally:
        imported.set()
    # MKL holds a lock while a thread ends, even after `join` returns. A fork at that moment would wait for the lock forever.
    main.join()
