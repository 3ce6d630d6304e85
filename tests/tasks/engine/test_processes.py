"""What stages need from the system: processes that end with their parent, work ahead, memory, progress."""

import functools
import itertools
import logging
import mmap
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import tqdm

from tasks.engine import processes, progress
from tasks.engine.errors import UserError
from tasks.engine.interrupts import die_with, is_worker
from tasks.engine.memory import peak_memory, reset_peak_memory
from tasks.engine.processes import (
    available_cores,
    make_pool,
    process_pool,
    run_ahead,
    run_in_pool,
    start_pool,
)

fork = multiprocessing.get_context("fork")


def start_hanging_child(depth: int, started) -> None:
    """A chain of `depth` processes; each asks to die with its parent, and the last one prints its id."""
    die_with(multiprocessing.parent_process().pid)
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
    assert_ends_with(parent, started.get(timeout=10))
    assert not is_worker()


def ask_too_late(started) -> None:
    """A process that asks to die with its parent when the parent is already dead."""
    started.put(os.getpid())
    while os.getppid() == multiprocessing.parent_process().pid:
        time.sleep(0.01)
    die_with(multiprocessing.parent_process().pid)
    time.sleep(60)


def start_one_that_asks_too_late(started) -> None:
    fork.Process(target=ask_too_late, args=(started,)).start()
    time.sleep(60)


def test_no_process_outlives_a_parent_that_died_before_it_asked():
    started = fork.Queue()
    parent = fork.Process(target=start_one_that_asks_too_late, args=(started,))
    parent.start()
    assert_ends_with(parent, started.get(timeout=10))


def assert_ends_with(parent, process: int) -> None:
    """Kills `parent` and waits until the process with the id `process` has ended as well."""
    parent.kill()
    parent.join()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def use_pool(results) -> None:
    results.put(list(process_pool(1).map(abs, [-1, -2])))


def test_worker_that_used_the_pool_ends():
    """The worker waits for its children when it ends, and these wait for work."""
    results = fork.Queue()
    worker = fork.Process(target=use_pool, args=(results,))
    worker.start()
    assert results.get(timeout=20) == [1, 2]
    worker.join(timeout=10)
    ended = worker.exitcode
    worker.kill()
    assert ended == 0


def test_a_fork_has_a_pool_of_its_own():
    assert list(process_pool(1).map(abs, [-3])) == [3]
    test_worker_that_used_the_pool_ends()
    assert list(process_pool(1).map(abs, [-4])) == [4]


def hold_pool(started) -> None:
    started.put(process_pool(1).submit(os.getpid).result())
    time.sleep(60)


def test_pool_does_not_outlive_a_killed_process():
    started = fork.Queue()
    parent = fork.Process(target=hold_pool, args=(started,))
    parent.start()
    worker = started.get(timeout=20)
    assert psutil.Process(worker).ppid() == parent.pid
    assert_ends_with(parent, worker)


def test_a_gpu_is_asked_by_another_process():
    """A stage runs in a fork of the process that computes keys; CUDA does not work in a fork of a process that has used it."""
    code = "import sys; from tasks.networks.precision import has_fast_bfloat16 as f; print(f('cuda'), 'torch' in sys.modules)"
    words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout.split()
    assert words[0] in ("True", "False")
    assert words[1] == "False"


FORKS = """
import multiprocessing, sys, threading
from tasks.engine import processes

processes.SOON = 0

def report():
    print(*("torch" in sys.modules, "numba" in sys.modules, threading.active_count()), flush=True)

for _ in range(2):
    process = multiprocessing.get_context("fork").Process(target=report)
    process.start()
    process.join()
print(*(thread.name for thread in threading.enumerate()))
"""


@pytest.mark.slow
def test_what_is_slow_is_imported_between_forks():
    """The second fork waited for the imports and has the modules; no thread exists in it, and none was ending at the fork."""
    run = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.splitlines() == ["False False 1", "True True 1", "MainThread imports"]
    assert run.stderr == ""


def test_what_is_slow_is_not_imported_by_a_command_that_is_soon_over():
    code = FORKS.replace("range(2)", "range(1)").replace("SOON = 0", "SOON = 30")
    check = "import atexit; atexit.register(lambda: print('numba' in sys.modules))"
    start = time.monotonic()
    run = subprocess.run([sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.splitlines() == ["False False 1", "MainThread imports", "False"]
    assert time.monotonic() - start < 20


@pytest.fixture
def pools(monkeypatch):
    """Pools that end with the test: a process that is forked later must not inherit them."""
    pools = []

    def make(size):
        pools.append(make_pool(size))
        return pools[-1]

    monkeypatch.setattr(processes, "make_pool", make)
    monkeypatch.setattr(processes, "_pools", {})
    yield pools
    for pool in pools:
        pool.shutdown()


class TestRunAhead:
    def test_results_come_in_the_order_of_the_jobs(self, pools):
        """The first job takes longest."""
        jobs = [0.3, 0.0, 0.1, 0.0, 0.0]
        assert list(run_ahead(time.sleep, jobs, 2)) == [None] * 5
        assert list(run_ahead(abs, range(-20, 0), 2)) == list(range(20, 0, -1))
        assert list(run_ahead(abs, [], 2)) == []
        assert len(pools) == 1

    def test_no_more_jobs_are_drawn_than_are_under_way_or_wait(self, pools):
        drawn = []
        jobs = (drawn.append(job) or job for job in itertools.count())  # without end
        results = run_ahead(abs, jobs, 1, ahead=3)
        assert drawn == []
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        assert drawn == [0, 1, 2, 3, 4]
        results.close()

    def test_an_error_is_raised_in_its_place(self, pools):
        results = run_ahead(abs, [-1, -2, "three", -4], 1)
        assert [next(results), next(results)] == [1, 2]
        with pytest.raises(TypeError, match="bad operand"):
            next(results)
        assert list(run_ahead(abs, [-5], 1)) == [5]

    @pytest.mark.parametrize("run", [run_ahead, pytest.param(run_in_pool, marks=pytest.mark.exhaustive)])
    def test_a_dead_process_is_an_error_and_the_next_pool_is_new(self, pools, run):
        with pytest.raises(UserError, match="a process of the pool died"):
            list(run(os._exit, [3], 1))
        assert list(run(abs, [-5], 1)) == [5]
        assert len(pools) == 2

    def test_a_started_pool_outlives_the_threads_that_use_it(self, pools):
        """Training images are read ahead in a thread, which ends before the next training begins."""
        results = []
        start_pool(1)
        for _ in range(2):
            thread = threading.Thread(target=lambda: results.extend(itertools.islice(run_ahead(abs, itertools.count(), 1), 3)))
            thread.start()
            thread.join()
            time.sleep(0.2)
        assert results == [0, 1, 2, 0, 1, 2]
        assert len(pools) == 1


def test_cores_are_those_that_we_may_use():
    assert available_cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("before", ["", pytest.param("import scipy.linalg, sklearn.svm", marks=pytest.mark.exhaustive)])
def test_threads_of_libraries_loaded_before_or_within_are_limited(before):
    """The libraries themselves report their threads, in a process that has loaded only those of NumPy."""
    script = f"""
import numpy
from threadpoolctl import threadpool_info
from tasks.engine.processes import limited_threads
{before}
counts = lambda: {{library["filepath"]: library["num_threads"] for library in threadpool_info()}}
unlimited = counts()
with limited_threads(1):
    import scipy.linalg, sklearn.svm
    assert len(counts()) >= 3 and set(counts().values()) == {{1}}, threadpool_info()
assert unlimited.items() <= counts().items()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


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
        """The logged lines; each item seems to take one second."""
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

    def test_lines_tell_how_things_stand(self, lines):
        """A line comes before the second and the fourth item, with the state after the first and the third."""
        seen = []
        for item in progress.make_progress("Stage/1", "step")(iter("abcd"), 4, lambda: f"loss {len(seen)}"):
            seen.append(item)
        assert lines() == [
            "Stage/1: 1/4, 0.5 steps a second, 6 s left, loss 1", "Stage/1: 3/4, 0.75 steps a second, 1 s left, loss 3",
        ]

    @pytest.mark.parametrize("total", [None, 3])
    def test_a_terminal_has_a_bar_that_tells_how_things_stand(self, capsys, monkeypatch, total):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setattr(tqdm, "tqdm", functools.partial(tqdm.tqdm, mininterval=0, miniters=1))
        seen = []
        for item in progress.make_progress("Stage/1", "step")(iter("abc"), total, lambda: f"loss {len(seen)}"):
            seen.append(item)
        assert seen == list("abc")
        shown = capsys.readouterr().err
        assert "Stage/1" in shown
        assert shown.index("loss 1") < shown.index("loss 2") < shown.index("loss 3")
        assert list(progress.make_progress("Stage/1")(iter("ab"))) == ["a", "b"]
