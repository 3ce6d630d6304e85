"""The memory of this process: what it holds at most, and giving back what earlier stages freed."""

import ctypes
import gc
import resource
import sys


def release_memory() -> None:
    """Gives back to the system what earlier stages freed: networks have malloc keep it (glibc)."""
    gc.collect()
    # What is still in use, most of it imported modules, is not gone through again: that takes 0.2 s each time.
    gc.freeze()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


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
