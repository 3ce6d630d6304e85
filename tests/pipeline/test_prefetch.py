"""Working ahead: order, errors, how far ahead, and that no thread stays behind."""

import threading
import time

import pytest

from pipeline.prefetch import prefetch


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.fixture(autouse=True)
def _no_thread_stays_behind():
    assert not workers()
    yield
    assert not workers()


def test_yields_everything_in_order():
    assert list(prefetch(range(100))) == list(range(100))


def test_nothing_gives_nothing():
    assert list(prefetch([])) == []


def test_none_and_exceptions_are_items_like_any_other():
    items = [None, KeyError("an item"), None]
    assert list(prefetch(items)) == items


def test_works_in_another_thread():
    names = list(prefetch(threading.current_thread().name for _ in range(3)))
    assert names == ["prefetch"] * 3


def test_an_exception_is_raised_where_the_items_are_read_after_those_before_it():
    def items():
        yield 1
        yield 2
        raise KeyError("three")

    numbers = []
    with pytest.raises(KeyError, match="three") as caught:
        numbers.extend(prefetch(items()))
    assert numbers == [1, 2]
    assert caught.traceback[-1].name == "items"  # the traceback leads to the culprit


def test_an_exit_in_the_thread_is_raised_too():
    def items():
        yield 1
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        list(prefetch(items()))


def endless(numbers):
    number = 0
    while True:
        numbers.append(number)
        yield number
        number += 1


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_computes_no_further_ahead_than_the_depth_and_one_in_hand(depth):
    numbers = []
    ahead = prefetch(endless(numbers), depth)
    assert numbers == []  # nothing before the first item is wanted
    for wanted in range(3):
        assert next(ahead) == wanted
        deadline = time.monotonic() + 5
        while len(numbers) < wanted + 1 + depth + 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert numbers == list(range(wanted + 1 + depth + 1))
    ahead.close()


def test_leaving_early_stops_the_thread():
    ahead = prefetch(endless([]))
    assert next(ahead) == 0
    assert len(workers()) == 1
    ahead.close()
    assert not workers()


def test_an_error_of_the_reader_stops_the_thread():
    def reader():
        for item in prefetch(endless([])):
            raise ValueError(item)

    with pytest.raises(ValueError, match="0"):
        reader()
    assert not workers()


def test_a_generator_that_was_never_read_starts_no_thread():
    prefetch(endless([])).close()
    assert not workers()
