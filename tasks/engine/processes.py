"""Processes: their cores, pools and threads. No process outlives its parent."""

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
from multiprocessing import resource_tracker
from multiprocessing.util import Finalize

from .errors import UserError
from .interrupts import die_with

THREAD_VARIABLES = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
POOL_DIED = "a process of the pool died, perhaps because memory ran out; free some memory, or lower --threads"


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_pools: dict[tuple[int, int], ProcessPoolExecutor] = {}  # by process and size: a fork cannot use its parent's


def process_pool(size: int) -> ProcessPoolExecutor:
    """This process's pool of `size` processes, kept for the whole command."""
    place = os.getpid(), size
    if place not in _pools:
        _pools[place] = make_pool(size)
    return _pools[place]


def make_pool(size: int) -> ProcessPoolExecutor:
    """A pool of `size` new processes. Forks would inherit locks that other threads hold."""
    context = multiprocessing.get_context("spawn")
    start_tracker()
    pool = ProcessPoolExecutor(size, mp_context=context, initializer=start_worker)
    # Luigi's worker waits for its children before its threads end. The pool's children would wait for work forever without this.
    Finalize(None, pool.shutdown, exitpriority=100)  # before the queues to the children close (10 in multiprocessing.queues)
    return pool


def start_tracker() -> None:
    """Starts the process that removes semaphores of killed processes, without its warnings, which would come too late."""
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
        _pools.pop((os.getpid(), size))  # the next stage gets a new one
        raise UserError(POOL_DIED) from error


def start_pool(size: int) -> None:
    """Starts the processes of a pool now. On Linux they die with the *thread* that started them, so it must not end early."""
    pool = process_pool(size)
    for _ in range(size):
        pool.submit(available_cores)


def run_ahead(function: Callable, jobs: Iterable, size: int, ahead: int = 4) -> Iterator:
    """As `run_in_pool`, for endless `jobs`: at most `ahead` jobs per process are running or waiting. See `start_pool`."""
    pool, left = process_pool(size), iter(jobs)
    waiting: deque[Future] = deque()
    try:
        while True:
            waiting.extend(pool.submit(function, job) for job in itertools.islice(left, size * ahead - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        _pools.pop((os.getpid(), size))
        raise UserError(POOL_DIED) from error


def run_in_threads(function: Callable, jobs: Sequence, size: int) -> Iterator:
    """As `run_in_pool`, but with threads: `function` should spend its time outside the interpreter lock."""
    with ThreadPoolExecutor(size) as pool:
        yield from pool.map(function, jobs)


def start_worker() -> None:
    die_with(_parent().pid)
    if sys.platform != "linux":
        threading.Thread(target=_end_with_parent, daemon=True).start()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent stops the pool


def _parent():
    """The process that started this one; every process of a pool has one."""
    return multiprocessing.parent_process()


def _end_with_parent() -> None:
    multiprocessing.connection.wait([_parent().sentinel])
    os._exit(1)


@contextlib.contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Limits BLAS and OpenMP to `count` threads: loaded libraries within the context, libraries loaded from now on for good."""
    from threadpoolctl import threadpool_limits

    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(count)))
    with threadpool_limits(count):
        yield
