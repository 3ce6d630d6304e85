"""Files from outside: whatever a path leads to, a reader neither waits nor breaks; JSON is a value or an error."""

import contextlib
import json
import os
import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.files.reading import NotRegular, check_regular, is_regular, open_regular, parse_json, read_regular


@pytest.fixture
def make(tmp_path):
    """make(kind) -> a path that leads to something of that kind."""
    sockets = []

    def make_path(kind):
        path = tmp_path / kind.replace(" ", "-").replace("/", "-")
        if kind.startswith("link to "):
            path.symlink_to(make_path(kind.removeprefix("link to ")))
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            sockets.append(socket.socket(socket.AF_UNIX))
            sockets[-1].bind(os.path.relpath(path))  # a socket's name is short
        elif kind == "folder":
            path.mkdir()
        elif kind == "file":
            path.write_bytes(b"content")
        else:
            return kind
        return path

    yield make_path
    for bound in sockets:
        bound.close()


KINDS = {
    "pipe": "a named pipe", "socket": "a socket", "/dev/zero": "a device", "/dev/tty": "a device", "link to pipe": "a named pipe",
    "link to /dev/zero": "a device", "link to link to socket": "a socket",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused_and_not_waited_for(make, kind):
    path = make(kind)
    with pytest.raises(NotRegular):
        open_regular(path)
    with pytest.raises(PipelineError) as caught:
        read_regular(path, "mend it")
    assert str(caught.value) == f"{path}: cannot be read (it is {KINDS[kind]}, not a regular file); mend it"
    with pytest.raises(PipelineError, match=f": it is {KINDS[kind]}, not a regular file; give a file$"):
        check_regular(path)
    assert not is_regular(path)


@pytest.mark.parametrize("kind", ["folder", "link to folder"])
def test_folders(make, kind):
    path = make(kind)
    with pytest.raises(PipelineError, match=r"cannot be read \(Is a directory\); mend it$"):
        read_regular(path, "mend it")
    with pytest.raises(PipelineError, match=r"Is a directory; give a file$"):
        check_regular(path)


@pytest.mark.parametrize("kind", ["file", "link to file", "link to link to file"])
def test_files_and_links_to_them(make, kind):
    path = make(kind)
    assert read_regular(path, "") == read_regular(str(path), "") == b"content"
    assert is_regular(path)
    check_regular(path)


def test_a_file_that_becomes_a_pipe_while_it_is_opened(make, monkeypatch):
    file, pipe = make("file"), make("pipe")
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: stat(file if path == pipe else path, **options))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(NotRegular):
        open_regular(pipe)
    assert not before or len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "a" * 5000, "", "loop"])
def test_names_that_no_file_has(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    path = f"{tmp_path}/{name}" if name else ""
    with pytest.raises(PipelineError, match=r": cannot be read \(.+\); mend it$") as caught:
        read_regular(path, "mend it")
    assert str(caught.value).isprintable()
    check_regular(path)  # its reader tells
    assert not is_regular(path)


def test_a_missing_file_in_the_callers_words(tmp_path):
    with pytest.raises(PipelineError, match=r"none: cannot be read \(No such file or directory\); mend it$"):
        read_regular(tmp_path / "none", "mend it")
    with pytest.raises(PipelineError, match=r"none: nothing there$"):
        read_regular(tmp_path / "none", "mend it", "nothing there")


def test_a_file_larger_than_any_memory(tmp_path):
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        try:
            file.truncate(1 << 43)
        except OSError:
            pytest.skip("this file system has no files of 8 TB")
    with pytest.raises(PipelineError, match=rf"sparse: has {1 << 43} bytes, at most {1 << 33} are read; mend it$"):
        read_regular(path, "mend it")


def refusal(content, **options):
    with pytest.raises(PipelineError) as caught:
        parse_json("a.json", content, "mend it", **options)
    assert str(caught.value).startswith("a.json: not readable as JSON (")
    assert str(caught.value).endswith("); mend it")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    return str(caught.value)


class TestJson:
    @pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "ü\n\x1b"]}, "😀", "\\ud800", 10**400, []])
    def test_values(self, value):
        for ascii in (True, False):
            assert parse_json("a.json", json.dumps(value, ensure_ascii=ascii).encode(), "") == value

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
    def test_encodings(self, encoding):
        assert parse_json("a.json", '{"ä": "\\ud83d\\ude00"}'.encode(encoding), "") == {"ä": "😀"}

    @pytest.mark.parametrize("content", [
        b"", b"{", b"\xff", b"\xff\xfe\x00", b'"\xed\xa0\x80"', b"a\x1b[31m\n", b"1" * 5000, b'{"a": -' + b"9" * 10**6 + b"}",
        b"[" * 10**5, b'{"a":' * 10**5, b"[" * 990 + b"{" * 10**5, b'[{"a":' * 5000 + b"1" + b"}]" * 5000, b"NaN", b"[-Infinity]",
        b'"\\ud800"', b'{"\\udcff": 1}', b'[{"a": [["\\uD83D"]]}]', b'["\\ude00\\ud83d"]',
    ])
    def test_what_is_none_is_one_line(self, content):
        refusal(content)

    def test_nan_where_it_is_allowed(self):
        assert np.isnan(parse_json("a.json", b"[NaN, Infinity]", "", constants=True)[0])
        refusal(b"[nan]", constants=True)

    def test_hooks_see_every_object(self):
        assert parse_json("a.json", b'{"a": {"b": 1}}', "", object_hook=len) == 1

    def test_memory(self, monkeypatch):
        def exhausted(*arguments, **options):
            raise MemoryError

        monkeypatch.setattr(json, "loads", exhausted)
        assert "too large for the memory" in refusal(b"1")

    @given(st.binary(max_size=60))
    def test_any_bytes(self, content):
        for constants in (True, False):
            with contextlib.suppress(PipelineError):
                json.dumps(parse_json("a.json", content, "", constants), ensure_ascii=False).encode()

    @given(st.integers(0, 2**32))
    def test_flipped_bytes(self, seed):
        generator = np.random.default_rng(seed)
        content = bytearray(json.dumps({"images": [{"id": 1, "file_name": "\ud83d\ude00 \u2028"}], "x": [1.5e300] * 3}).encode())
        for place in generator.integers(0, len(content), 3):
            content[place] = generator.choice([*b'"\\{}[]ud8eE+-,:', *generator.integers(0, 256, 3)])
        with contextlib.suppress(PipelineError):
            json.dumps(parse_json("a.json", bytes(content), "", True), ensure_ascii=False).encode()
