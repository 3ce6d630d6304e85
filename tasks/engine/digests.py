"""SHA-256 digests: of files, which are remembered, and of every value that canonical JSON can hold."""

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

# Seconds. A file that changed more recently than this before it was hashed may change again without a change of its times.
SETTLED_SECONDS = 2.0
MISSING = "missing"
AT_ONCE = 10_000  # files, or entries of JSON, that are in memory at the same time
IN_QUERY = 900  # paths per query: older versions of SQLite take up to 999
BUSY_SECONDS = 1.0  # how long to wait while another process writes: it takes less


def canonical_json(value) -> str:
    """JSON that is the same text for the same value: sorted keys, no spaces, and 1000.0 written as 1000."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _plain(value):
    if type(value) in (str, int, bool):  # most values
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
    """The canonical JSON of `value`. A large dictionary comes in parts: its whole text would take more memory than its values."""
    if not isinstance(value, dict) or len(value) <= AT_ONCE or any(type(name) is not str for name in value):
        yield canonical_json(value)
        return
    names = sorted(value)
    for start in range(0, len(names), AT_ONCE):
        yield ("," if start else "{") + canonical_json({name: value[name] for name in names[start:start + AT_ONCE]})[1:-1]
    yield "}"


def digest_file(path: Path | str) -> str:
    """SHA-256 (hex) of a file's content. Raises OSError if `path` is not a regular file; does not wait for a FIFO."""
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a plain `open` waits for a FIFO that nobody writes to


class State(NamedTuple):
    """The state of a file: while it stays the same, so does the file's content. `changed` is in seconds since the epoch."""

    path: bytes  # absolute; bytes, since not every file name is valid text
    device: bytes
    status: bytes  # inode, size, modification time, change time
    changed: float


def _state_of(path: Path | str) -> State | None:
    """The state of a file; None if it may not be read or is not a regular file. Opens nothing."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or not os.access(path, os.R_OK):
            return None
        absolute = os.fsencode(path if _is_absolute(path) else os.path.abspath(path))
    except (OSError, ValueError):  # ValueError: no file can have this name
        return None
    fields = b"%d %d %d %d" % (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return State(absolute, b"%d" % status.st_dev, fields, max(status.st_mtime, status.st_ctime))


def _is_absolute(path: Path | str) -> bool:
    """Whether `os.path.abspath` certainly returns `path` itself. For 100,000 paths it takes longer than the rest."""
    return type(path) is str and path.startswith("/") and "//" not in path and "/." not in path and not path.endswith("/")


def _seal(state: State, digest: bytes) -> bytes:
    """A digest of a whole row: it shows whether the row is damaged."""
    return hashlib.sha256(b"\0".join((state.path, state.device, state.status, digest))).digest()


class DigestMemory:
    """Content digests of files, each remembered for as long as the file's state stays the same.

    The state is the path, device, inode, size, modification time and change time. `rsync -t` or `cp -p` set a modification time;
    nothing sets a change time. A file in a known state is not opened; any other is hashed. The digests are kept in an SQLite
    file. If that file cannot be used, files are hashed again: this is slower, never wrong.
    """

    def __init__(self, memory: Path):
        self.memory = Path(memory)

    def of(self, paths: Iterable[Path | str]) -> dict[Path | str, str]:
        """The digest of each path; `MISSING` if it cannot be read or is not a regular file. Such a path is never opened."""
        result: dict[Path | str, str] = {}
        paths = iter(paths)
        while batch := list(islice(paths, AT_ONCE)):
            result |= self._of(batch)
        return result

    def remember(self, digests: Mapping[Path | str, str]) -> None:
        """Remembers digests, by path, that the caller computed. Nobody but the caller may write to these files."""
        states = ((_state_of(path), digest) for path, digest in digests.items())
        self._store([(state, digest) for state, digest in states if state])

    def _of(self, paths: list[Path | str]) -> dict[Path | str, str]:
        now = time.time()
        states = {path: _state_of(path) for path in paths}
        known = self._recall({state.path for state in states.values() if state})
        result, new_digests = {}, []
        for path, state in states.items():
            digest, seal = known.get(state[:2], (b"", b"")) if state else (b"", b"")
            if not state:
                result[path] = MISSING
            elif seal == _seal(state, digest):
                result[path] = digest.decode()
            else:
                result[path] = self._hash(path)
                # If the file changes after `state` was read, it gets another state.
                if result[path] != MISSING and now - state.changed > SETTLED_SECONDS:
                    new_digests.append((state, result[path]))
        self._store(new_digests)
        return result

    def _hash(self, path: Path | str) -> str:
        try:
            return digest_file(path)
        except OSError:
            return MISSING

    def _recall(self, places: Collection[bytes]) -> dict[tuple[bytes, bytes], tuple[bytes, bytes]]:
        """The remembered digests and seals of the files `places`, by path and device."""
        known: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}
        left = iter(places)
        try:
            with self._open("ro") as database:
                while batch := list(islice(left, IN_QUERY)):
                    marks = ",".join("?" * len(batch))
                    rows = database.execute(f"SELECT path, device, digest, seal FROM file_digests WHERE path IN ({marks})", batch)
                    known |= {(path, device): (digest, seal) for path, device, digest, seal in rows if isinstance(digest, bytes)}
        except (sqlite3.OperationalError, OSError):  # there is none yet, it is busy, or it cannot be read
            return {}
        except sqlite3.DatabaseError:  # it is damaged: start a new one
            self._remove()
            return {}
        return known

    def _store(self, new_digests: Collection[tuple[State, str]]) -> None:
        if not new_digests:
            return
        rows = ((state.path, state.device, digest.encode(), _seal(state, digest.encode())) for state, digest in new_digests)
        with contextlib.suppress(sqlite3.Error, OSError):
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            with self._open("rwc") as database:
                database.execute("PRAGMA synchronous = OFF")  # if a power cut loses or spoils a row, the file is hashed again
                # One row for each device: hosts that share a folder number its device differently.
                columns = "path BLOB, device BLOB, digest BLOB, seal BLOB, PRIMARY KEY (path, device)"
                database.execute(f"CREATE TABLE IF NOT EXISTS file_digests ({columns}) WITHOUT ROWID")
                database.executemany("INSERT OR REPLACE INTO file_digests VALUES (?, ?, ?, ?)", rows)
                database.commit()

    @contextlib.contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        """The database, opened in `mode` ("ro" or "rwc"). Raises OSError if a link or the like is in its place."""
        for file in self._files():
            # SQLite follows a link, and waits for a FIFO.
            if os.path.lexists(file) and not stat.S_ISREG(os.lstat(file).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", file)
        name = quote(os.fsencode(os.path.abspath(self.memory)))
        with contextlib.closing(sqlite3.connect(f"file:{name}?mode={mode}", timeout=BUSY_SECONDS, uri=True)) as database:
            yield database

    def _files(self) -> list[str]:
        """The database and the files that SQLite keeps next to it."""
        return [f"{self.memory}{suffix}" for suffix in ("", "-journal", "-wal", "-shm")]

    def _remove(self) -> None:
        for file in self._files():
            with contextlib.suppress(OSError):
                os.unlink(file)
