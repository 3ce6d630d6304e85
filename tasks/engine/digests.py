"""SHA-256 digests: of files, with a memory, and of anything that canonical JSON can hold."""

import contextlib
import errno
import hashlib
import json
import math
import os
import sqlite3
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

# A file that changed less than this before it was hashed may change again under the same times.
SETTLED_SECONDS = 2.0
MISSING = "missing"
AT_ONCE = 10_000  # files whose states, and entries whose JSON, are held at the same time
IN_QUERY = 900  # paths in one query: older versions of SQLite take 999
BUSY_SECONDS = 1.0  # how long another process's writing is waited for: it takes less


def canonical_json(value) -> str:
    """One text for one value: sorted keys, no spaces, and 1000.0 written as 1000."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _plain(value):
    if type(value) in (str, int, bool):  # most of what there is
        return value
    if isinstance(value, dict):
        return {str(name): item if type(item) is str else _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value


def digest_json(value) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    digest = hashlib.sha256()
    for part in _canonical_parts(value):
        digest.update(part.encode())
    return digest.hexdigest()


def _canonical_parts(value) -> Iterator[str]:
    """The canonical JSON of `value`; that of a large dictionary in parts, since one text takes more memory than its values."""
    if not isinstance(value, dict) or len(value) <= AT_ONCE or any(type(name) is not str for name in value):
        yield canonical_json(value)
        return
    names = sorted(value)
    for start in range(0, len(names), AT_ONCE):
        yield ("," if start else "{") + canonical_json({name: value[name] for name in names[start:start + AT_ONCE]})[1:-1]
    yield "}"


def digest_file(path: Path | str) -> str:
    """SHA-256 (hex) of a file's content. Raises OSError for what is no regular file, and does not wait for a FIFO."""
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no regular file", os.fspath(path))
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest_stream(file)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a FIFO that nobody writes to keeps a plain `open` waiting


def _digest_stream(file) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


class State(NamedTuple):
    """What tells whether a file is still the same one. `changed` is in seconds since the epoch."""

    path: bytes  # absolute; a file's name may be no text
    device: bytes
    status: bytes  # inode, size, modification time, change time
    changed: float


def _state_of(path: Path | str) -> State | None:
    """The state of a file; None for one that may not be read, and for what is no regular file. Opens nothing."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or not os.access(path, os.R_OK):
            return None
        place = os.fsencode(os.path.abspath(path))
    except (OSError, ValueError):  # ValueError: no file can have this name
        return None
    status = b"%d %d %d %d" % (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return State(place, b"%d" % found.st_dev, status, max(found.st_mtime, found.st_ctime))


def _seal(state: State, digest: bytes) -> bytes:
    """A digest of a whole row, so that no damaged row is believed."""
    return hashlib.sha256(b"\0".join((state.path, state.device, state.status, digest))).digest()


class DigestMemory:
    """Content digests of files, each remembered for as long as the file's state stays the same.

    The state is its path, device, inode, size, modification time and change time. `rsync -t` or `cp -p` set a modification time;
    nothing sets a change time. A file in a known state is not opened; any other is hashed. What is remembered lies in an SQLite
    file. Where that cannot be used, files are hashed anew: slower, never wrong.
    """

    def __init__(self, memory: Path):
        self.memory = Path(memory)

    def of(self, paths: Iterable[Path | str]) -> dict[Path | str, str]:
        """The digest of each of `paths`; `MISSING` for one that cannot be read or is no regular file, which is never opened."""
        result: dict[Path | str, str] = {}
        paths = iter(paths)
        while some := list(islice(paths, AT_ONCE)):
            result |= self._of(some)
        return result

    def remember(self, digests: Mapping[Path | str, str]) -> None:
        """Remembers digests that the caller computed, by path, of its own files, which nobody else writes to."""
        states = ((_state_of(path), digest) for path, digest in digests.items())
        self._store([(state, digest) for state, digest in states if state])

    def _of(self, paths: list[Path | str]) -> dict[Path | str, str]:
        now = time.time()
        states = {path: _state_of(path) for path in paths}
        known = self._recall({state.path for state in states.values() if state})
        result, learnt = {}, []
        for path, state in states.items():
            digest, seal = known.get(state[:2], (b"", b"")) if state else (b"", b"")
            if not state:
                result[path] = MISSING
            elif seal == _seal(state, digest):
                result[path] = digest.decode()
            else:
                result[path] = self._hash(path)
                # A change since `state` was taken gives the file another state.
                if result[path] != MISSING and now - state.changed > SETTLED_SECONDS:
                    learnt.append((state, result[path]))
        self._store(learnt)
        return result

    def _hash(self, path: Path | str) -> str:
        try:
            return digest_file(path)
        except OSError:
            return MISSING

    def _recall(self, places: Collection[bytes]) -> dict[tuple[bytes, bytes], tuple[bytes, bytes]]:
        """Digest and seal by path and device, of those of `places` that are remembered."""
        known: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}
        left = iter(places)
        try:
            with self._open("ro") as database:
                while some := list(islice(left, IN_QUERY)):
                    marks = ",".join("?" * len(some))
                    rows = database.execute(f"SELECT path, device, digest, seal FROM file_digests WHERE path IN ({marks})", some)
                    known |= {(path, device): (digest, seal) for path, device, digest, seal in rows if isinstance(digest, bytes)}
        except (sqlite3.OperationalError, OSError):  # none yet, busy, or not readable
            return {}
        except sqlite3.DatabaseError:  # damaged: begun anew
            self._remove()
            return {}
        return known

    def _store(self, learnt: Collection[tuple[State, str]]) -> None:
        if not learnt:
            return
        rows = ((state.path, state.device, digest.encode(), _seal(state, digest.encode())) for state, digest in learnt)
        with contextlib.suppress(sqlite3.Error, OSError):
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            with self._open("rwc") as database:
                database.execute("PRAGMA synchronous = OFF")  # what a power cut loses or spoils is hashed anew
                # One row for each device: hosts that share a folder number its device differently.
                columns = "path BLOB, device BLOB, digest BLOB, seal BLOB, PRIMARY KEY (path, device)"
                database.execute(f"CREATE TABLE IF NOT EXISTS file_digests ({columns}) WITHOUT ROWID")
                database.executemany("INSERT OR REPLACE INTO file_digests VALUES (?, ?, ?, ?)", rows)
                database.commit()

    @contextlib.contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        """The database, opened as `mode` ("ro", "rwc") says. Raises OSError where a link or the like is in its place."""
        for file in self._files():
            # SQLite follows a link, and waits for a FIFO.
            if os.path.lexists(file) and not stat.S_ISREG(os.lstat(file).st_mode):
                raise OSError(errno.EINVAL, "no regular file", file)
        name = quote(os.fsencode(os.path.abspath(self.memory)))
        with contextlib.closing(sqlite3.connect(f"file:{name}?mode={mode}", timeout=BUSY_SECONDS, uri=True)) as database:
            yield database

    def _files(self) -> list[str]:
        """The database and the files that SQLite keeps beside it."""
        return [f"{self.memory}{suffix}" for suffix in ("", "-journal", "-wal", "-shm")]

    def _remove(self) -> None:
        for file in self._files():
            with contextlib.suppress(OSError):
                os.unlink(file)
