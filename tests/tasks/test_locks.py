"""Locks between processes."""

import multiprocessing
import os
import signal
import socket
import time

import pytest

from tasks import locks

fork = multiprocessing.get_context("fork")


def hold(path, ready, release):
    with locks.held(path):
        ready.set()
        release.wait(30)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "locks" / "a.lock"


@pytest.fixture
def holder(path):
    """A process that holds the lock until its `release` is set."""
    ready, release = fork.Event(), fork.Event()
    process = fork.Process(target=hold, args=(path, ready, release))
    process.release = release
    process.start()
    assert ready.wait(10)
    yield process
    process.kill()
    process.join()


def test_free_lock_is_held_and_leaves_no_file(path):
    with locks.held(path) as held:
        assert held
        assert path.exists()
    assert not any(path.parent.iterdir())


def test_exception_frees_the_lock(path):
    with pytest.raises(ZeroDivisionError), locks.held(path):
        raise ZeroDivisionError
    assert not path.exists()


def test_second_waits_and_is_told_of_the_holder_once(path, holder, monkeypatch):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    told = []

    def on_wait(who):
        told.append((who, time.monotonic()))
        release_later.start()

    release_later = fork.Process(target=lambda: (time.sleep(0.1), holder.release.set()))
    with locks.held(path, on_wait=on_wait) as held:
        waited = time.monotonic() - told[0][1]
        assert held
        assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    release_later.join()
    assert [who for who, _ in told] == [f"process {holder.pid} on {socket.gethostname()}"]
    assert waited >= 0.1
    assert not path.exists()


def test_without_waiting_a_lock_of_another_is_left_alone(path, holder):
    with locks.held(path, wait=False, on_wait=pytest.fail) as held:
        assert not held
    assert path.exists()
    with locks.held(path.with_name("b.lock"), wait=False) as held:
        assert held


def test_kill_of_the_holder_frees_the_lock(path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert path.exists()
    with locks.held(path, wait=False) as held:
        assert held
    assert not path.exists()


def count_up(path, counter, times):
    for _ in range(times):
        with locks.held(path):
            value = int(counter.read_text())
            time.sleep(0.0005)
            counter.write_text(str(value + 1))


def test_only_one_process_at_a_time(path, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.0002)  # often in the gap between removal and release
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [fork.Process(target=count_up, args=(path, counter, 100)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert counter.read_text() == "400"
    assert not any(path.parent.iterdir())
