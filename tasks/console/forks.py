"""Slow imports between two forks: in the command's own process, so that not every stage's process does them again."""

import gc
import importlib
import os
import threading
import time

SLOW_IMPORTS = "torch", "numba"  # what takes half a second or more
SOON = 2.0


def import_between_forks() -> None:
    """Has this process import, once it has forked, what most stages need: in a thread, for which the next fork waits.

    Each stage of a run of several workers has a new process, a fork of this one, and would take seconds to import it again. The
    first does without, and a command that is over in `SOON` seconds as well.
    """
    going_on, imported = threading.Event(), threading.Event()
    thread = threading.Thread(target=_import_if_going_on, args=(going_on, imported), name="imports")

    def start():
        if thread.ident is None:
            importlib.import_module("h5py")  # it takes part in forks itself: not in the middle of one
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
            gc.freeze()  # lest each fork goes through all of it
    finally:
        imported.set()
    # MKL holds a lock while a thread ends, after `join` has returned: a fork just then would wait for it forever.
    main.join()
