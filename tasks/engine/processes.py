"""Processes: their cores, their memory, and that none outlives its parent."""

import contextlib
import ctypes
import gc
import importlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import resource_tracker
from multiprocessing.util import Finalize

from pipeline.errors import PipelineError
from tasks.engine.interrupts import die_with

THREAD_VARIABLES = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
# What takes half a second or more; torch's optimizers import its compiler.
SLOW_IMPORTS = "torch._dynamo", "numba"
SOON = 2.0
POOL_DIED = "a process of the pool died, perhaps for want of memory; free some, or lower --threads"


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def process_pool(size: int) -> ProcessPoolExecutor:
    """A pool of `size` fresh processes, kept for the whole command. A fork would inherit threads that hold locks."""
    context = multiprocessing.get_context("spawn")
    _start_tracker()
    pool = ProcessPoolExecutor(size, mp_context=context, initializer=_start_worker)
    # A worker of Luigi's waits for its children before its threads end, and the pool's children for work: forever, without this.
    Finalize(None, pool.shutdown, exitpriority=100)  # before the queues to them close (10 in multiprocessing.queues)
    return pool


def _start_tracker() -> None:
    """Starts the process that removes semaphores when others are killed; it would warn of each, lines after the last one."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
    resource_tracker.ensure_running()
    if before is None:
        del os.environ["PYTHONWARNINGS"]
    else:
        os.environ["PYTHONWARNINGS"] = before


def run_in_pool(function: Callable, jobs: Sequence, size: int) -> Iterator:
    """Yields `function(job)` for each job, in order, computed by `size` processes. Raises PipelineError when one of them dies."""
    try:
        yield from process_pool(size).map(function, jobs)
    except BrokenProcessPool as error:
        process_pool.cache_clear()  # the next stage gets a new one
        raise PipelineError(POOL_DIED) from error


def start_pool(size: int) -> None:
    """Starts the processes of a pool now. Linux has them die with the *thread* that started them: not one that ends early."""
    pool = process_pool(size)
    for _ in range(size):
        pool.submit(available_cores)


def run_ahead(function: Callable, jobs: Iterable, size: int, ahead: int = 4) -> Iterator:
    """As `run_in_pool` for jobs without end: no more than `ahead` a process are under way or wait. See `start_pool`."""
    pool, waiting, jobs = process_pool(size), deque(), iter(jobs)
    try:
        while True:
            waiting.extend(pool.submit(function, job) for job in itertools.islice(jobs, size * ahead - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        process_pool.cache_clear()
        raise PipelineError(POOL_DIED) from error


def run_in_threads(function: Callable, jobs: Sequence, size: int) -> Iterator:
    """Yields `function(job)` for each job, in order, computed by `size` threads: for work that releases the interpreter."""
    with ThreadPoolExecutor(size) as pool:
        yield from pool.map(function, jobs)


def _start_worker() -> None:
    die_with(multiprocessing.parent_process().pid)
    if sys.platform != "linux":
        threading.Thread(target=_end_with_parent, daemon=True).start()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent stops the pool


def _end_with_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


@contextlib.contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Has BLAS and OpenMP use `count` threads: now those that are loaded, for good those that are loaded from now on."""
    from threadpoolctl import threadpool_limits

    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(count)))
    with threadpool_limits(count):
        yield


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


@cache
def has_fast_bfloat16(device: str) -> bool:
    """Whether `device` computes in bfloat16 faster than in float32; of a CPU asked without importing torch.

    GPUs from NVIDIA's Ampere on (compute capability 8) do; older ones imitate it. Processors with AMX do, and AMD's with
    avx512_bf16. Intel's without AMX take 1.4 times as long as in float32 for SqueezeNet.
    """
    if device != "cpu":
        # By another process: stages run in forks of this one, and CUDA works in no fork of a process that has used it.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker) as pool:
            return pool.submit(_gpu_has_bfloat16, device).result()
    try:
        with open("/proc/cpuinfo") as file:
            first = file.read().partition("\n\n")[0].split()
    except OSError:
        return False
    return "amx_bf16" in first or ("AuthenticAMD" in first and "avx512_bf16" in first)


def _gpu_has_bfloat16(device: str) -> bool:
    import torch

    return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)


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
