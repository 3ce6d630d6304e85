"""The check whether locks reach from one host to another; here the two hosts are two threads, which locks tell apart as well."""

import contextlib
import os
import threading
import time

import pytest

from tasks.engine import lock_check, locks
from tasks.engine.lock_check import check_locks


@pytest.fixture
def check(tmp_path, monkeypatch):
    """A function that checks on a first host and, once it holds its lock, on a second; returns the answers and the words."""
    monkeypatch.setattr(lock_check, "LOOK_EVERY", 0.01)

    def check(before_second=lambda: None) -> tuple[bool, bool, list[str], list[str]]:
        answers, said, holds = [], [], threading.Event()

        def first():
            answers.append(check_locks(tmp_path, 20, lambda text: (said.append(text), holds.set())))

        thread = threading.Thread(target=first)
        thread.start()
        assert holds.wait(10)
        before_second()
        seen = []
        second = check_locks(tmp_path, 20, seen.append)
        thread.join(20)
        return answers[0], second, said, seen

    return check


def test_two_hosts_see_each_others_locks(check, tmp_path):
    first, second, said, seen = check()
    assert first
    assert second
    assert said[-1].endswith(" sees it")
    assert seen[0].startswith(f"process {os.getpid()} on ")
    assert seen[0].endswith("sees it: locks work")
    assert not any((tmp_path / ".locks").iterdir())


def test_locks_that_the_second_host_does_not_see(check, monkeypatch):
    first, second, said, seen = check(lambda: monkeypatch.setattr(locks, "is_held", lambda path: False))
    assert not first
    assert not second
    assert said[-1].endswith(" does not see it")
    assert "two hosts may make the same result twice, but every result is whole" in seen[0]


def test_the_answer_is_never_seen_half_written(check, monkeypatch):
    """The first host looks again and again, and takes the answer away as soon as it is there."""
    write = lock_check.write_file

    def write_slowly(path, content):
        path.write_text("")
        time.sleep(0.1)
        write(path, content)

    first, second, said, _ = check(lambda: monkeypatch.setattr(lock_check, "write_file", write_slowly))
    assert first
    assert second
    assert said[-1].endswith(" sees it")


def test_locks_that_do_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "held", lambda path, wait: contextlib.nullcontext(True))
    (tmp_path / ".locks").mkdir()
    said = []
    assert not check_locks(tmp_path, 1, said.append)
    assert "locks do nothing on this file system" in said[0]


def test_nobody_else_looks(tmp_path):
    said = []
    assert check_locks(tmp_path, 0.05, said.append)
    assert said[-1] == "no other host has looked"
