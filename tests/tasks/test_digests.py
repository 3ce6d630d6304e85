"""Canonical JSON, and the memory of outside files' digests."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import digests
from tasks.digests import MISSING, SETTLED_SECONDS, OutsideDigests, canonical_json, digest_file, digest_json

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

    @settings(max_examples=50, deadline=None)
    @given(documents)
    def test_wording_is_irrelevant(self, document):
        assert canonical_json(rewritten(document)) == canonical_json(document)

    @settings(max_examples=50, deadline=None)
    @given(documents)
    def test_nothing_is_lost(self, document):
        assert json.loads(canonical_json(document)) == document

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")]])
    def test_what_is_no_json_number_is_refused(self, value):
        with pytest.raises(ValueError, match="Out of range float"):
            canonical_json(value)

    def test_what_has_no_order_is_refused(self):
        with pytest.raises(TypeError):
            canonical_json({"a", "b"})


class TestDigestFile:
    def test_published_value(self, tmp_path):
        (tmp_path / "abc").write_bytes(b"abc")
        assert digest_file(tmp_path / "abc") == ABC

    def test_both_ways_agree(self, tmp_path):
        content = os.urandom((1 << 20) + 1)
        (tmp_path / "big").write_bytes(content)
        with open(tmp_path / "big", "rb") as file:
            assert digests._digest_stream(file) == digest_file(tmp_path / "big") == hashlib.sha256(content).hexdigest()

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


def write(path: Path, text: str, age: float = 3600) -> Path:
    path.write_text(text)
    return touch(path, age)


def touch(path: Path, age: float) -> Path:
    os.utime(path, (time.time() - age,) * 2)
    return path


class TestOutsideDigests:
    @pytest.fixture
    def memory(self, tmp_path):
        return OutsideDigests(tmp_path / "cache" / "digests.sqlite")

    def test_unchanged_file_is_hashed_once(self, memory, tmp_path, hashed):
        a, b = write(tmp_path / "a", "abc"), write(tmp_path / "b", "")
        assert memory.of([a, b]) == {a: ABC, b: hashlib.sha256().hexdigest()}
        assert memory.of([b, a]) == {a: ABC, b: hashlib.sha256().hexdigest()}
        assert hashed == ["a", "b"]

    def test_touch_costs_one_hash_and_keeps_the_digest(self, memory, tmp_path, hashed):
        path = write(tmp_path / "a", "abc")
        memory.of([path])
        touch(path, 1800)
        assert memory.of([path]) == memory.of([path]) == {path: ABC}
        assert hashed == ["a", "a"]

    def test_changed_content_is_seen(self, memory, tmp_path):
        path = write(tmp_path / "a", "abc")
        memory.of([path])
        write(path, "abd", age=1800)
        assert memory.of([path]) == {path: hashlib.sha256(b"abd").hexdigest()}

    def test_changed_size_is_seen_under_the_same_time(self, memory, tmp_path):
        path = write(tmp_path / "a", "abc")
        memory.of([path])
        stat = path.stat()
        path.write_text("abcd")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert memory.of([path]) == {path: hashlib.sha256(b"abcd").hexdigest()}

    def test_fresh_file_is_not_remembered(self, memory, tmp_path, hashed):
        path = write(tmp_path / "a", "abc", age=0)
        memory.of([path])
        stat = path.stat()
        path.write_text("abd")  # as within one tick of a coarse clock
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert memory.of([path]) == {path: hashlib.sha256(b"abd").hexdigest()}
        assert hashed == ["a", "a"]

    def test_file_that_settles_while_it_is_hashed_is_not_remembered(self, memory, tmp_path, hashed, monkeypatch):
        path = write(tmp_path / "a", "abc", age=0)
        clock = iter([path.stat().st_mtime + SETTLED_SECONDS - 0.1] + [path.stat().st_mtime + 10 * SETTLED_SECONDS] * 9)
        monkeypatch.setattr(digests.time, "time", lambda: next(clock))
        memory.of([path])
        memory.of([path])
        assert hashed == ["a", "a"]

    def test_file_of_the_future_is_not_remembered(self, memory, tmp_path, hashed):
        path = write(tmp_path / "a", "abc", age=-3600)
        memory.of([path])
        memory.of([path])
        assert hashed == ["a", "a"]

    def test_missing_file_and_folder(self, memory, tmp_path):
        (tmp_path / "folder").mkdir()
        found = memory.of([tmp_path / "none", tmp_path / "folder", write(tmp_path / "a", "abc")])
        assert list(found.values()) == [MISSING, MISSING, ABC]

    def test_file_that_comes_later_is_found(self, memory, tmp_path):
        path = tmp_path / "a"
        assert memory.of([path]) == {path: MISSING}
        assert memory.of([write(path, "abc")]) == {path: ABC}

    def test_one_file_under_two_names_is_hashed_once(self, memory, tmp_path, hashed, monkeypatch):
        path = write(tmp_path / "a", "abc")
        (tmp_path / "link").symlink_to(path)
        monkeypatch.chdir(tmp_path)
        memory.of([path])
        assert memory.of([Path("a"), Path("link")]) == {Path("a"): ABC, Path("link"): ABC}
        assert hashed == ["a"]

    def test_no_paths(self, memory):
        assert memory.of([]) == {}

    @pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\x00" + b"\xff" * 5000])
    def test_damaged_memory_is_begun_anew(self, memory, tmp_path, hashed, content):
        path = write(tmp_path / "a", "abc")
        memory.memory.parent.mkdir()
        memory.memory.write_bytes(content)
        assert [memory.of([path])[path] for _ in range(3)] == [ABC] * 3
        assert hashed == ["a"]

    def test_memory_that_cannot_be_written_is_done_without(self, memory, tmp_path):
        path = write(tmp_path / "a", "abc")
        memory.memory.mkdir(parents=True)
        assert memory.of([path]) == memory.of([path]) == {path: ABC}


def test_what_is_no_file_is_missing_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    paths = [tmp_path, Path("\ud800"), *(tmp_path / name for name in ("pipe", "link", "device", "a\0b", "a" * 5000))]
    assert OutsideDigests(tmp_path / "memory").of(paths) == dict.fromkeys(paths, MISSING)
