"""Processes that need each other: results, log lines, and one clear error that ends them all."""

import logging
import multiprocessing
import os
import signal
import time

import pytest

from tasks.engine import group
from tasks.engine.errors import UserError
from tasks.engine.group import MemberDied, run_group


@pytest.fixture(autouse=True)
def _forks(monkeypatch):
    """Forks start at once; new processes would import all stages."""
    monkeypatch.setattr(group, "START", "fork")
    monkeypatch.setattr(group, "CAUSE_SECONDS", 0.5)


def square(number, offset):
    logging.getLogger("stages").warning("process %d", number)
    return number**2 + offset


def test_results_come_in_order_and_the_first_process_logs(caplog):
    assert run_group(3, square, 10) == [10, 11, 14]
    assert caplog.messages == ["process 0"]


def fail(number, what):
    if number != 1:
        time.sleep(60 if number == 2 or what is bug else 0.1)
        raise RuntimeError("lost the connection to process 1")
    what()


def refuse():
    time.sleep(0.2)
    raise UserError("--devices: too many", "take one")


def bug():
    raise ZeroDivisionError("of my own")


def die():
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


def end_early():
    os._exit(3)


@pytest.mark.parametrize(("what", "error", "text"), [
    (refuse, UserError, r"^--devices: too many\n  take one$"),
    (die, MemberDied, r"^process 2 of 3 was ended by SIGKILL, most likely by the system because memory ran out$"),
    (end_early, MemberDied, r"^process 2 of 3 ended with exit code 3$"),
    (bug, ZeroDivisionError, r"^of my own$"),
])
def test_the_first_cause_is_raised_and_no_process_is_left(what, error, text):
    """The others fail too, since they lose process 1, or wait for it."""
    before = multiprocessing.active_children()  # of other tests
    with pytest.raises(error, match=text):
        run_group(3, fail, what)
    assert set(multiprocessing.active_children()) <= set(before)


def test_a_bug_shows_where_it_is():
    with pytest.raises(ZeroDivisionError) as raised:
        run_group(2, fail, bug)
    assert "in process 2 of 2" in str(raised.value.__cause__)
    assert "in bug" in str(raised.value.__cause__)


class NotForOthers(Exception):
    """Cannot be pickled."""

    def __init__(self):
        super().__init__(lambda: None)


def raise_what_cannot_be_sent(number):
    raise NotForOthers


def test_an_error_that_cannot_be_pickled_is_named():
    with pytest.raises(RuntimeError, match="NotForOthers"):
        run_group(1, raise_what_cannot_be_sent)
