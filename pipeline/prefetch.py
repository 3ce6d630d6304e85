"""Working ahead: a generator that runs in a separate thread, and jobs that several threads do."""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def prefetch(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """Yields `items`, computed ahead in a thread: up to `depth` wait, one more may be in hand.

    An exception there is raised here; leaving early stops the thread.
    """
    ready: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(item) -> bool:
        if not stopped.is_set():
            ready.put(item)
        return not stopped.is_set()

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as error:  # raised again in the thread that reads
            put((_END, error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        with contextlib.suppress(queue.Empty):  # makes room for an item that waits, so that the thread goes on and ends
            while True:
                ready.get_nowait()
        thread.join()


def in_order(pool: ThreadPoolExecutor, jobs: Iterable[Callable[[], Item]], ahead: int) -> Generator[Item, None, None]:
    """Yields the result of each of `jobs`, in order; while one result is in use, the next `ahead` are made by `pool`.

    Leaving early drops the jobs that have not begun, with all others that wait in the pool.
    """
    waiting: deque[Future] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
