"""SHA-256 digests: of files, of outside files with a memory, and of anything that canonical JSON can hold."""

import contextlib
import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from pipeline.files import open_regular

# A file that changed less than this before it was hashed may change again under the same modification time.
SETTLED_SECONDS = 2.0
MISSING = "missing"


def canonical_json(value) -> str:
    """One text for one value: sorted keys, no spaces, and 1000.0 written as 1000."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _plain(value):
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value


def digest_json(value) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest_stream(file)


def _digest_stream(file) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


class OutsideDigests:
    """Content digests of files outside the cache, remembered by path, size and modification time.

    A file that did not change is only stat'ed; a touched one is hashed once more. What is remembered lies in an SQLite file;
    where that cannot be used, files are hashed anew: slower, never wrong.
    """

    def __init__(self, memory: Path):
        self.memory = memory

    def of(self, paths: Iterable[Path]) -> dict[Path, str]:
        """The digest of each of `paths`; `MISSING` for one that cannot be read, or is no regular file, which is not opened."""
        paths = [Path(path) for path in paths]
        known, learnt, result = self._recall(), [], {}
        now = time.time()
        for path in paths:
            try:
                stat = path.stat()
                state = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
                result[path] = known.get(state) or digest_file(path)
            except (OSError, ValueError):  # ValueError: a name that no file can have
                result[path] = MISSING
                continue
            if state not in known and now - stat.st_mtime > SETTLED_SECONDS:
                learnt.append((*state, result[path]))
        self._remember(learnt)
        return result

    def _recall(self) -> dict[tuple, str]:
        try:
            with self._open() as database:
                rows = database.execute("SELECT path, size, mtime, digest FROM digests").fetchall()
        except (sqlite3.OperationalError, OSError):  # busy, or not writable
            return {}
        except sqlite3.DatabaseError:  # damaged: begun anew
            self.memory.unlink(missing_ok=True)
            return {}
        return {(path, size, mtime): digest for path, size, mtime, digest in rows}

    def _remember(self, rows: list[tuple]) -> None:
        if rows:
            with contextlib.suppress(sqlite3.Error, OSError), self._open() as database:
                database.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", rows)
                database.commit()

    def _open(self):
        self.memory.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.memory, timeout=10)
        database.execute("CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, size INT, mtime INT, digest TEXT)")
        return contextlib.closing(database)
