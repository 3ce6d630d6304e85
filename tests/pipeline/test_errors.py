"""What the user reads of an error: whole lines, and nothing that steers a terminal, whatever is in a name."""

import copy
import pickle

import pytest

from pipeline.errors import DatasetError, PipelineError
from pipeline.text import flat, printable, printable_lines, shown

# A name, and what is shown of it: colours, a window's title, the bell, line ends of all kinds, bidirectional marks, half a pair.
ESCAPED = [
    ("\x1b[31mred", r"\x1b[31mred"), ("\x1b]0;title\x07", r"\x1b]0;title\x07"), ("\x9b2J", r"\x9b2J"),
    ("a\nERROR: b", r"a\nERROR: b"), ("a\rb", r"a\rb"), ("a\x08\x7fb", r"a\x08\x7fb"),
    ("a\x85b\u2028c\u2029d", r"a\x85b\u2028c\u2029d"), ("a\0b", r"a\x00b"),
    ("\u202egpj.exe", r"\u202egpj.exe"), ("\u2066a\u2069", r"\u2066a\u2069"), ("\udcff.jpg", r"\udcff.jpg"),
    ("\ud800", r"\ud800"), ("\U000e0041", r"\U000e0041"), ("a\tb", r"a\tb"),
]
PLAIN = ["cat", "Größe 3 µm", "猫", "кошка", "a b", r"C:\new", "😀", ""]


@pytest.mark.parametrize(("name", "expected"), ESCAPED)
def test_what_cannot_be_printed_is_written_out(name, expected):
    assert printable(name) == expected
    assert printable(expected) == expected  # once more changes nothing
    expected.encode()


@pytest.mark.parametrize("name", PLAIN)
def test_text_stays_as_it_is(name):
    assert printable(name) == printable_lines(name) == str(PipelineError(name)) == name


@pytest.mark.parametrize(("name", "expected"), ESCAPED)
def test_an_error_is_as_many_lines_as_it_was_given(name, expected):
    assert str(PipelineError(f"{name}: wrong")) == f"{expected}: wrong"
    assert str(PipelineError("two:", name, "b")) == f"two:\n  {expected}\n  b"
    assert str(DatasetError(name, [name, "b"])) == f"{expected}: 2 problem(s)\n  {expected}\n  b"


class Special(PipelineError):
    pass


@pytest.mark.parametrize("error", [
    PipelineError("a\nb"), PipelineError("one", "two\x1b", "three"), Special("one", "two"), DatasetError("a", ["b\n", "c"]),
    PipelineError(),
])
def test_crosses_processes_with_its_text(error):
    once = pickle.loads(pickle.dumps(error))
    for again in (once, pickle.loads(pickle.dumps(once)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_lines_of_our_own_stay():
    assert printable_lines("a\x1b\nb\r\n") == "a\\x1b\nb\\r\n"


def test_values_are_shown_short():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(nested) == "[[[[...]]]]"
    assert len(shown(["x" * 10_000] * 10_000)) < 1000
    assert shown("a\nb") == r"'a\nb'"
    assert shown([1, 2.5, None]) == "[1, 2.5, None]"
    del nested


def test_errors_of_libraries_are_one_line():
    assert flat(ValueError("a\n  b\tc\x1b")) == r"a b c\x1b"
    assert flat(MemoryError()) == "MemoryError"
    assert len(flat(ValueError("\x1b" * 10**5))) == 300
