"""What stages ask of the system: processes that end with their parent, memory, progress."""

import logging
import mmap
import multiprocessing
import os
import time

import numpy as np
import psutil
import pytest

from tasks import progress
from tasks.processes import available_cores, die_with_parent, is_worker, peak_memory, process_pool, reset_peak_memory

fork = multiprocessing.get_context("fork")


def start_hanging_child(depth: int, started) -> None:
    """A chain of `depth` processes, each asking to die with the one before; the last one says its id."""
    die_with_parent()
    assert is_worker()
    if depth:
        fork.Process(target=start_hanging_child, args=(depth - 1, started)).start()
    else:
        started.put(os.getpid())
    time.sleep(60)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_no_process_outlives_its_parent(depth):
    started = fork.Queue()
    parent = fork.Process(target=start_hanging_child, args=(depth, started))
    parent.start()
    last = started.get(timeout=10)
    parent.kill()
    parent.join()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(last) and psutil.Process(last).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not is_worker()


def use_pool(results) -> None:
    results.put(list(process_pool(1).map(abs, [-1, -2])))


def test_worker_that_used_the_pool_ends():
    """It waits for its children at its end, and these for work."""
    results = fork.Queue()
    worker = fork.Process(target=use_pool, args=(results,))
    worker.start()
    assert results.get(timeout=20) == [1, 2]
    worker.join(timeout=10)
    ended = worker.exitcode
    worker.kill()
    assert ended == 0


def test_cores_are_those_that_we_may_use():
    assert available_cores() == len(os.sched_getaffinity(0))


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system cannot reset the peak")
def test_peak_memory_starts_anew():
    size = 200 << 20
    reset_peak_memory()
    before = peak_memory()
    with mmap.mmap(-1, size) as block:  # not by malloc, which may keep what is freed
        np.frombuffer(block, np.uint8)[:] = 1
        assert peak_memory() > before + size // 2
    reset_peak_memory()
    assert peak_memory() < before + size // 2


class TestProgress:
    @pytest.fixture
    def lines(self, caplog, monkeypatch):
        """The lines that are logged, with the time an item as if it took one second."""
        clock = iter(range(100))
        monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
        monkeypatch.setattr(progress.logger, "propagate", True)
        monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 2.0)
        caplog.set_level(logging.INFO, "rcnn")
        return lambda: [record.getMessage() for record in caplog.records]

    def test_items_pass_and_lines_say_how_far(self, lines):
        assert list(progress.make_progress("Stage/1", "image")("abcdef")) == list("abcdef")
        assert lines() == [
            "Stage/1: 1/6, 0.5 images a second, 10 s left", "Stage/1: 3/6, 0.75 images a second, 4 s left",
            "Stage/1: 5/6, 0.833 images a second, 1 s left",
        ]

    def test_unknown_total(self, lines):
        assert list(progress.make_progress("Stage/1", "step")(iter("abc"))) == list("abc")
        assert lines() == ["Stage/1: 1/?, 0.5 steps a second"]

    def test_nothing_to_do(self, lines):
        assert list(progress.make_progress("Stage/1")([])) == []
        assert lines() == []
