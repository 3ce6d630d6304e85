"""Processes: their cores, their memory, and that none outlives its parent."""

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
from functools import cache

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def die_with_parent() -> None:
    """Has the kernel kill this process when its parent dies, be it by `kill -9` (Linux)."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we could ask
            os.kill(os.getpid(), signal.SIGKILL)


def is_worker() -> bool:
    """Whether this process was started by another Python process of ours."""
    return multiprocessing.parent_process() is not None


def reset_peak_memory() -> None:
    """Starts `peak_memory` anew, where the system allows it (Linux)."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def peak_memory() -> int:
    """The largest resident set of this process in bytes, since `reset_peak_memory` where that works."""
    try:
        with open("/proc/self/status") as file:
            line = next(line for line in file if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
