"""Canonical JSON, digests of files, and the memory of them."""

import hashlib
import json
import os
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.engine import digests
from tasks.engine.digests import IN_QUERY, MISSING, SETTLED_SECONDS, DigestMemory, canonical_json, digest_file, digest_json
from tests.tiers import examples

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1

# Integers up to 2 ** 53 have a float of the same value.
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
documents = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def rewritten(value):
    """The same value, written differently: keys the other way round, lists as tuples, whole numbers as floats."""
    if isinstance(value, dict):
        return {name: rewritten(value[name]) for name in reversed(value)}
    if isinstance(value, list):
        return tuple(map(rewritten, value))
    return float(value) if type(value) is int else value


class TestCanonicalJson:
    def test_one_text_for_one_value(self):
        assert canonical_json({"b": 1000.0, "a": [True, 0.5, -0.0, None, "é"]}) == '{"a":[true,0.5,0,null,"\\u00e9"],"b":1000}'

    def test_1000_and_1000_0_have_one_digest(self):
        assert digest_json({"c": 1000}) == digest_json({"c": 1000.0}) != digest_json({"c": 1000.5})

    def test_true_is_not_1(self):
        assert digest_json([True]) != digest_json([1])

    def test_digest_is_sha256_of_the_text(self):
        assert digest_json({"b": 1.0, "a": ()}) == hashlib.sha256(b'{"a":[],"b":1}').hexdigest()

    @settings(max_examples=examples(50), deadline=None)
    @given(documents)
    def test_wording_is_irrelevant(self, document):
        assert canonical_json(rewritten(document)) == canonical_json(document)

    @settings(max_examples=examples(50), deadline=None)
    @given(documents)
    def test_nothing_is_lost(self, document):
        assert json.loads(canonical_json(document)) == document

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")]])
    def test_what_is_no_json_number_is_refused(self, value):
        with pytest.raises(ValueError, match="Out of range float"):
            canonical_json(value)

    @settings(max_examples=examples(50), deadline=None)
    @given(document=st.dictionaries(st.text() | st.integers(), documents, max_size=12), size=st.integers(1, 5))
    def test_digest_in_parts_is_that_of_the_text(self, document, size):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(digests, "AT_ONCE", size)
            assert digest_json(document) == hashlib.sha256(canonical_json(document).encode()).hexdigest()

    def test_what_has_no_order_is_refused(self):
        with pytest.raises(TypeError):
            canonical_json({"a", "b"})


class TestDigestFile:
    def test_published_value(self, tmp_path):
        (tmp_path / "abc").write_bytes(b"abc")
        assert digest_file(tmp_path / "abc") == ABC

    def test_one_that_is_read_in_parts(self, tmp_path):
        content = os.urandom((1 << 20) + 1)
        (tmp_path / "big").write_bytes(content)
        assert digest_file(tmp_path / "big") == hashlib.sha256(content).hexdigest()

    def test_what_is_no_file_is_refused_without_waiting(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
            with pytest.raises(OSError, match=path.name):
                digest_file(path)

    def test_empty_file(self, tmp_path):
        (tmp_path / "empty").touch()
        assert digest_file(tmp_path / "empty") == hashlib.sha256().hexdigest()


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """The names of the files that were hashed."""
    names = []

    def counting(path):
        names.append(Path(path).name)
        return digest_file(path)

    monkeypatch.setattr(digests, "digest_file", counting)
    return names


@pytest.fixture
def clock(monkeypatch):
    """A clock an hour ahead, for which all files are old; `clock.ahead` sets the seconds."""
    clock = SimpleNamespace(ahead=3600.0)
    monkeypatch.setattr(digests, "time", SimpleNamespace(time=lambda: time.time() + clock.ahead))
    return clock


@pytest.fixture
def memory(tmp_path):
    return DigestMemory(tmp_path / "cache" / "digests.sqlite")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def rewrite(path: Path, text: str) -> None:
    """Writes until the change time is another: the clock of file systems is coarse, and our file not as old as it seems."""
    status = path.stat()
    while path.stat().st_ctime_ns == status.st_ctime_ns:
        write(path, text)
        restore_times(path, status)


def restore_times(path: Path, status: os.stat_result) -> None:
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.usefixtures("clock")
class TestDigestMemory:
    def test_unchanged_file_is_hashed_once(self, memory, tmp_path, hashed):
        a, b = write(tmp_path / "a", "abc"), write(tmp_path / "b", "")
        assert memory.of([a, b]) == {a: ABC, b: digest_of("")}
        assert memory.of([b, str(a)]) == {str(a): ABC, b: digest_of("")}
        assert hashed == ["a", "b"]

    def test_touch_costs_one_hash_and_keeps_the_digest(self, memory, tmp_path, hashed):
        path = write(tmp_path / "a", "abc")
        memory.of([path])
        os.utime(path, (1e9, 1e9))
        assert memory.of([path]) == memory.of([path]) == {path: ABC}
        assert hashed == ["a", "a"]

    def test_change_is_seen_under_the_same_size_and_modification_time(self, memory, tmp_path):
        path = write(tmp_path / "a", "abc")
        memory.of([path])
        rewrite(path, "abd")
        assert memory.of([path]) == {path: digest_of("abd")}

    def test_another_file_moved_there_with_the_same_size_and_times_is_seen(self, memory, tmp_path):
        path, second = write(tmp_path / "a", "abc"), write(tmp_path / "b", "abd")
        memory.of([path])
        restore_times(second, path.stat())
        second.rename(path)
        assert memory.of([path]) == {path: digest_of("abd")}

    @pytest.mark.parametrize("field", ["st_ino", "st_dev", "st_size", "st_mtime_ns", "st_ctime_ns"])
    def test_each_part_of_the_state_tells(self, memory, tmp_path, hashed, monkeypatch, field):
        path = write(tmp_path / "a", "abc")
        memory.of([path])
        real = os.stat

        def changed(path, **options):
            status = real(path, **options)
            names = [name for name in dir(status) if name.startswith("st_")]
            return SimpleNamespace(**{name: getattr(status, name) + (name == field) for name in names})

        monkeypatch.setattr(digests, "os", SimpleNamespace(**{**vars(os), "stat": changed}))
        memory.of([path])
        assert hashed == ["a", "a"]

    def test_fresh_file_is_not_remembered(self, memory, tmp_path, clock, hashed):
        clock.ahead = SETTLED_SECONDS - 1
        path = write(tmp_path / "a", "abc")
        os.utime(path, (1e9, 1e9))  # its modification time may be old
        memory.of([path])
        memory.of([path])
        assert hashed == ["a", "a"]

    def test_file_that_settles_while_it_is_hashed_is_not_remembered(self, memory, tmp_path, clock, monkeypatch, hashed):
        path = write(tmp_path / "a", "abc")
        clock.ahead = 0

        def slow(path):
            clock.ahead += 10 * SETTLED_SECONDS
            hashed.append(path.name)
            return digest_file(path)

        monkeypatch.setattr(digests, "digest_file", slow)
        memory.of([path])
        memory.of([path])
        assert hashed == ["a", "a"]

    def test_file_that_changes_while_it_is_hashed_is_not_remembered(self, memory, tmp_path, monkeypatch):
        path = write(tmp_path / "a", "abc")

        def slow(path):
            digest = digest_file(path)
            rewrite(path, "abd")
            return digest

        with monkeypatch.context() as patch:
            patch.setattr(digests, "digest_file", slow)
            assert memory.of([path]) == {path: ABC}
        assert memory.of([path]) == {path: digest_of("abd")}

    def test_file_of_the_future_is_not_remembered(self, memory, tmp_path, hashed):
        path = write(tmp_path / "a", "abc")
        os.utime(path, (time.time() + 7200,) * 2)
        memory.of([path])
        memory.of([path])
        assert hashed == ["a", "a"]

    def test_what_is_no_file_that_can_be_read_is_missing_and_not_opened(self, memory, tmp_path, monkeypatch, hashed):
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "to_pipe").symlink_to("pipe")
        (tmp_path / "loop").symlink_to("loop")
        names = ["none", "folder", "pipe", "to_pipe", "loop", "a\0b", "\ud800"]
        paths = [*(tmp_path / name for name in names), Path("/dev/zero"), write(tmp_path / "a", "abc")]
        assert list(memory.of(paths).values()) == [MISSING] * 8 + [ABC]
        assert hashed == ["a"]

    def test_remembered_file_that_may_no_longer_be_read_is_missing(self, memory, tmp_path, monkeypatch):
        path = write(tmp_path / "a", "abc")  # permissions do not keep an administrator, who may run the tests, from anything
        memory.of([path])
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        assert memory.of([path]) == {path: MISSING}

    def test_file_that_comes_later_is_found(self, memory, tmp_path):
        path = tmp_path / "a"
        assert memory.of([path]) == {path: MISSING}
        assert memory.of([write(path, "abc")]) == {path: ABC}

    def test_relative_and_absolute_names_are_one_file(self, memory, tmp_path, hashed, monkeypatch):
        path = write(tmp_path / "a", "abc")
        (tmp_path / "link").symlink_to(path)
        monkeypatch.chdir(tmp_path)
        memory.of([path])
        assert memory.of([Path("a"), "./a", Path("link")]) == {Path("a"): ABC, "./a": ABC, Path("link"): ABC}
        assert hashed == ["a", "link"]

    def test_link_that_leads_elsewhere_is_seen(self, memory, tmp_path):
        link = tmp_path / "link"
        for text in ("abc", "abd"):
            link.unlink(missing_ok=True)
            link.symlink_to(write(tmp_path / text, text))
            assert memory.of([link]) == {link: digest_of(text)}

    def test_names_that_are_no_text(self, memory, tmp_path, hashed):
        paths = [Path(os.fsdecode(os.fsencode(tmp_path) + name)) for name in (b"/caf\xe9", b"/\xff\xfe", b"/a'b%?#\n")]
        for path in paths:
            write(path, "abc")
        assert memory.of(paths) == memory.of(paths) == dict.fromkeys(paths, ABC)
        assert len(hashed) == 3

    def test_more_paths_than_one_query_or_one_part_takes(self, memory, tmp_path, hashed, monkeypatch):
        monkeypatch.setattr(digests, "AT_ONCE", IN_QUERY + 7)
        paths = [write(tmp_path / f"{number}", f"{number}") for number in range(2 * IN_QUERY + 20)]
        expected = {path: digest_of(path.name) for path in paths}
        assert memory.of(iter(paths)) == memory.of(iter(paths)) == expected
        assert len(hashed) == len(paths)

    def test_no_paths(self, memory):
        assert memory.of([]) == {}

    def test_what_a_caller_computed_is_remembered_at_once(self, memory, tmp_path, clock, hashed):
        clock.ahead = 0
        a, b = write(tmp_path / "a", "abc"), write(tmp_path / "b", "")
        memory.remember({a: ABC, b: digest_of(""), tmp_path / "none": ABC})
        assert memory.of([a, b, tmp_path / "none"]) == {a: ABC, b: digest_of(""), tmp_path / "none": MISSING}
        assert hashed == []

    def test_one_path_in_a_large_memory_is_looked_up_by_the_index(self, memory, tmp_path, hashed, monkeypatch):
        paths = [write(tmp_path / f"{number}", "") for number in range(2000)]
        memory.of(paths)
        read = []
        real = sqlite3.connect

        def counting(*args, **options):
            database = real(*args, **options)
            database.set_progress_handler(lambda: read.append(1), 100)  # every 100 steps of SQLite's machine
            return database

        monkeypatch.setattr(digests, "sqlite3", SimpleNamespace(**{**vars(sqlite3), "connect": counting}))
        memory.of(paths[-1:])
        assert len(hashed) == 2000
        assert len(read) < 5

    @pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\x00" + b"\xff" * 5000])
    def test_damaged_memory_is_begun_anew(self, memory, tmp_path, hashed, content):
        path = write(tmp_path / "a", "abc")
        memory.memory.parent.mkdir()
        memory.memory.write_bytes(content)
        assert [memory.of([path])[path] for _ in range(3)] == [ABC] * 3
        assert hashed == ["a"]

    def test_no_damaged_byte_is_believed(self, memory, tmp_path):
        paths = [write(tmp_path / name, name) for name in "abc"]
        expected = {path: digest_of(path.name) for path in paths}
        memory.of(paths)
        whole = memory.memory.read_bytes()
        used = [place for place, byte in enumerate(whole) if byte]
        for place in used[:: max(1, len(used) // 150)]:
            memory.memory.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
            assert memory.of(paths) == expected
        for size in range(0, len(whole), 1777):
            memory.memory.write_bytes(whole[:size])
            assert memory.of(paths) == expected

    def test_memory_of_an_earlier_version_is_no_hindrance(self, memory, tmp_path, hashed):
        path = write(tmp_path / "a", "abc")
        memory.memory.parent.mkdir()
        with sqlite3.connect(memory.memory) as database:
            database.execute("CREATE TABLE digests (path TEXT PRIMARY KEY, size INT, mtime INT, digest TEXT)")
            database.execute("INSERT INTO digests VALUES (?, 3, ?, 'wrong')", (str(path), path.stat().st_mtime_ns))
        assert memory.of([path]) == memory.of([path]) == {path: ABC}
        assert hashed == ["a"]

    @pytest.mark.parametrize("suffix", ["", "-journal", "-wal"])
    @pytest.mark.parametrize("kind", ["folder", "link", "dangling", "pipe"])
    def test_what_lies_in_place_of_the_memory_is_left_alone(self, memory, tmp_path, kind, suffix):
        path, outside = write(tmp_path / "a", "abc"), tmp_path / "outside"
        place = Path(f"{memory.memory}{suffix}")
        memory.memory.parent.mkdir()
        if kind == "folder":
            place.mkdir()
        elif kind == "pipe":
            os.mkfifo(place)
        else:
            place.symlink_to(outside)
            if kind == "link":
                write(outside, "mine")
        assert memory.of([path]) == memory.of([path]) == {path: ABC}
        memory.remember({path: ABC})
        assert place.is_symlink() == (kind in ("link", "dangling"))
        assert os.path.lexists(place)
        assert outside.exists() == (kind == "link")
        assert kind != "link" or outside.read_text() == "mine"

    def test_busy_memory_is_done_without(self, memory, tmp_path, monkeypatch, hashed):
        a, b = write(tmp_path / "a", "abc"), write(tmp_path / "b", "")
        memory.of([a])
        monkeypatch.setattr(digests, "BUSY_SECONDS", 0.01)
        database = sqlite3.connect(memory.memory)
        database.execute("BEGIN EXCLUSIVE")
        assert memory.of([a, b]) == {a: ABC, b: digest_of("")}
        database.close()
        assert hashed == ["a", "a", "b"]
        assert memory.of([a]) == {a: ABC}
        assert hashed == ["a", "a", "b"]

    @pytest.mark.parametrize("error", [sqlite3.OperationalError("disk is full"), OSError(30, "Read-only")])
    def test_memory_that_cannot_be_written_is_done_without(self, memory, tmp_path, monkeypatch, error):
        path = write(tmp_path / "a", "abc")

        def fail(*args, **options):
            raise error

        monkeypatch.setattr(digests, "sqlite3", SimpleNamespace(**{**vars(sqlite3), "connect": fail}))
        assert memory.of([path]) == memory.of([path]) == {path: ABC}
        memory.remember({path: ABC})
