"""Processes: their cores, their memory, and that none outlives its parent."""

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import resource_tracker
from multiprocessing.util import Finalize

from .errors import UserError
from .interrupts import die_with

THREAD_VARIABLES = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
POOL_DIED = "a process of the pool died, perhaps for want of memory; free some, or lower --threads"


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def process_pool(size: int) -> ProcessPoolExecutor:
    """A pool of `size` fresh processes, kept for the whole command. A fork would inherit threads that hold locks."""
    context = multiprocessing.get_context("spawn")
    _start_tracker()
    pool = ProcessPoolExecutor(size, mp_context=context, initializer=start_worker)
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
    """Yields `function(job)` for each job, in order, computed by `size` processes. Raises UserError when one of them dies."""
    try:
        yield from process_pool(size).map(function, jobs)
    except BrokenProcessPool as error:
        process_pool.cache_clear()  # the next stage gets a new one
        raise UserError(POOL_DIED) from error


def start_pool(size: int) -> None:
    """Starts the processes of a pool now. Linux has them die with the *thread* that started them: not one that ends early."""
    pool = process_pool(size)
    for _ in range(size):
        pool.submit(available_cores)


def run_ahead(function: Callable, jobs: Iterable, size: int, ahead: int = 4) -> Iterator:
    """As `run_in_pool` for jobs without end: no more than `ahead` a process are under way or wait. See `start_pool`."""
    pool, left = process_pool(size), iter(jobs)
    waiting: deque[Future] = deque()
    try:
        while True:
            waiting.extend(pool.submit(function, job) for job in itertools.islice(left, size * ahead - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        process_pool.cache_clear()
        raise UserError(POOL_DIED) from error


def run_in_threads(function: Callable, jobs: Sequence, size: int) -> Iterator:
    """Yields `function(job)` for each job, in order, computed by `size` threads: for work that releases the interpreter."""
    with ThreadPoolExecutor(size) as pool:
        yield from pool.map(function, jobs)


def start_worker() -> None:
    die_with(_parent().pid)
    if sys.platform != "linux":
        threading.Thread(target=_end_with_parent, daemon=True).start()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent stops the pool


def _parent():
    """The process that started this one, as a pool's processes have one."""
    return multiprocessing.parent_process()


def _end_with_parent() -> None:
    multiprocessing.connection.wait([_parent().sentinel])
    os._exit(1)


@contextlib.contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Has BLAS and OpenMP use `count` threads: now those that are loaded, for good those that are loaded from now on."""
    from threadpoolctl import threadpool_limits

    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(count)))
    with threadpool_limits(count):
        yield
