"""Locks between processes."""

import multiprocessing
import os
import signal
import socket
import threading
import time

import numpy as np
import pytest

from tasks.engine import locks

fork = multiprocessing.get_context("fork")


def hold(path, ready, release):
    with locks.held(path):
        ready.set()
        release.wait(30)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "locks").mkdir()
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
    waits = []

    def on_wait(who):
        waits.append((who, time.monotonic()))
        release_later.start()

    release_later = fork.Process(target=lambda: (time.sleep(0.1), holder.release.set()))
    with locks.held(path, on_wait=on_wait) as held:
        waited = time.monotonic() - waits[0][1]
        assert held
        assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    release_later.join()
    assert [who for who, _ in waits] == [f"process {holder.pid} on {socket.gethostname()}"]
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


def take_turns(cores, gate, used, times, least, most):
    """Holds some of the cores again and again; writes to `used` a plus for each core taken and a minus for each given back."""
    for _ in range(times):
        with locks.some_held(cores, gate, least, most) as mine, open(used, "ab", buffering=0) as file:
            file.write(b"+" * len(mine))
            time.sleep(0.001)
            file.write(b"-" * len(mine))


class TestSomeOfMany:
    @pytest.fixture
    def cores(self, tmp_path):
        return [tmp_path / f"{number}.lock" for number in range(3)]

    @pytest.fixture
    def gate(self, tmp_path):
        return tmp_path / "gate.lock"

    def test_first_of_those_that_are_free_and_no_file_is_left(self, cores, gate, tmp_path):
        with locks.some_held(cores, gate, 1, 1) as first, locks.some_held(cores, gate, 1, 2) as second:
            assert (first, second) == (cores[:1], cores[1:])
            assert sorted(tmp_path.iterdir()) == sorted(cores)  # the gate is open again
        assert not any(tmp_path.iterdir())

    def test_more_than_the_least_only_where_they_are_free(self, cores, gate):
        with locks.held(cores[1]), locks.some_held(cores, gate, 1, 3) as mine:
            assert mine == [cores[0], cores[2]]

    def test_exception_frees_them(self, cores, gate, tmp_path):
        with pytest.raises(ZeroDivisionError), locks.some_held(cores, gate, 2, 2):
            raise ZeroDivisionError
        assert not any(tmp_path.iterdir())

    def test_waits_for_the_least_and_keeps_others_from_what_it_waits_for(self, cores, gate, monkeypatch):
        monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
        entered, waits = [], []

        def take(name, least):
            with locks.some_held(cores, gate, least, least, on_wait=lambda holder: waits.append((name, holder))) as mine:
                entered.append((name, len(mine)))

        with locks.some_held(cores, gate, 1, 1):
            everything = threading.Thread(target=take, args=("everything", 3))
            everything.start()
            while not gate.exists():
                time.sleep(0.001)
            single = threading.Thread(target=take, args=("one", 1))
            single.start()
            time.sleep(0.1)
            assert entered == []
            here = f"process {os.getpid()} on {socket.gethostname()}"
            assert waits == [("everything", here), ("one", here)]
        for thread in (everything, single):
            thread.join(10)
        assert entered == [("everything", 3), ("one", 1)]

    def test_a_short_wait_is_not_told_and_a_long_one_once(self, cores, gate, monkeypatch):
        monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
        waits = {0.05: [], 60: []}

        def take(patience):
            with locks.some_held(cores, gate, 3, 3, on_wait=waits[patience].append, tell_after=patience):
                pass

        with locks.some_held(cores, gate, 1, 1):
            threads = [threading.Thread(target=take, args=(patience,)) for patience in waits]
            for thread in threads:
                thread.start()
            time.sleep(0.3)
        for thread in threads:
            thread.join(10)
        assert {patience: len(holders) for patience, holders in waits.items()} == {0.05: 1, 60: 0}

    def test_never_more_than_there_are_and_none_waits_forever(self, cores, gate, tmp_path, monkeypatch):
        monkeypatch.setattr(locks, "POLL_SECONDS", 0.0005)
        used = tmp_path / "used"
        wants = [(1, 1), (2, 2), (2, 3), (3, 3)]
        processes = [fork.Process(target=take_turns, args=(cores, gate, used, 25, *want)) for want in wants]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * 4
        in_use = np.cumsum([1 if byte == ord("+") else -1 for byte in used.read_bytes()])
        assert (in_use.min(), in_use.max(), in_use[-1]) == (0, 3, 0)
