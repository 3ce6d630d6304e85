"""The memory of this process: its peak, and how memory that earlier stages freed goes back to the system."""

import ctypes
import gc
import resource
import sys


def release_memory() -> None:
    """Gives memory that earlier stages freed back to the system; after networks, glibc's malloc would keep it."""
    gc.collect()
    # Later collections skip the objects still in use, which are mostly imported modules: to visit them takes 0.2 s each time.
    gc.freeze()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def reset_peak_memory() -> None:
    """Resets `peak_memory`, if the system allows it (Linux)."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def peak_memory() -> int:
    """The largest resident set of this process in bytes; since `reset_peak_memory`, if that works."""
    try:
        with open("/proc/self/status") as file:
            line = next(line for line in file if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
