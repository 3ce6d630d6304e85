"""Artefacts: one folder a task, `cache/<stage>/<first 12 hex digits of the key>/`, with its files and a `manifest.json`.

Every file is compared with the digest in the manifest when it is first read, and again when it changed since. A damaged artefact
is put aside, so that the same command makes it again.
"""

import json
import os
import re
import stat
import time
import zipfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

from . import locks
from .digests import MISSING, DigestMemory, digest_file
from .errors import UserError
from .manifest import MANIFEST, describe_files, digest_files, read_manifest
from .places import cache_folder, refuse_link
from .storage import CANNOT_READ, refused

SHARDS = "shards.json"  # the list of a sharded stage's shards
WHOLE = -1  # the number of the whole stage, where a shard has its own
KEY_DIGITS = 12
MEMORY = ".digests.sqlite"  # what is known of files, in the cache
ASIDE = ".damaged"  # folder of damaged artefacts, in the cache
LOCKS = ".locks"  # folder of locks, in the cache
LOOKS, MOMENT = 3, 0.05  # how often, and after how many seconds, what seems damaged is looked at
PARSE_ERRORS: tuple[type[Exception], ...] = (ValueError, KeyError, EOFError, RecursionError, zipfile.BadZipFile)

__all__ = ["Artefact", "DamagedArtefact", "artefact_folder", "describe_files", "digest_files", "digest_of", "put_aside"]


class DamagedArtefact(UserError):
    """An artefact whose file at `path` is not what its manifest says."""

    def __init__(self, path: Path, message: str):
        super().__init__(message)
        self.path = Path(path)

    def __reduce__(self):
        return type(self), (self.path, str(self))


class Artefact:
    """The folder of one finished task. `key` is the whole key, 64 hex digits."""

    def __init__(self, cache: Path, stage: str, key: str):
        self.cache, self.stage, self.key = Path(cache), stage, key
        self.folder = self.cache / stage / key[:KEY_DIGITS]

    def __repr__(self) -> str:
        return f"{self.stage}/{self.key[:KEY_DIGITS]}"

    def exists(self) -> bool:
        """Whether the folder is there with a sound manifest that bears the whole key. Raises UserError for links."""
        refuse_link(self.folder.parent)
        refuse_link(self.folder)
        return (read_manifest(self.folder) or {}).get("key") == self.key

    @property
    def manifest(self) -> dict:
        manifest = self._look(lambda: read_manifest(self.folder), lambda found: found is not None)
        if manifest is None:
            raise self._damaged(self.folder / MANIFEST, f"found no sound manifest, expected one with the key {self.key}")
        if manifest.get("key") != self.key:
            raise DamagedArtefact(self.folder, f"{self.folder}: of the key {manifest.get('key')}, expected {self.key}; run again")
        return manifest

    def path(self, name: str) -> Path:
        """The path of the artefact's file `name`, compared with its digest.

        Raises DamagedArtefact when it is not there or not what was written; the artefact is put aside then. Raises UserError
        when the system refuses to read it.
        """
        path = self.folder / name
        if name not in self.manifest["files"]:
            advice = f"--force {self.stage} makes it again"
            raise DamagedArtefact(path, f"{path}: no such file in the artefact's {MANIFEST}; {advice}")
        if fault := self._look(lambda: self._fault(name, self.manifest["files"]), lambda found: not found):
            raise self._damaged(path, fault)
        return path

    @staticmethod
    def _look(look, is_right):
        """What `look()` finds; again after a moment if that is not right: another command may be making the artefact anew."""
        for _ in range(LOOKS):
            found = look()
            if is_right(found):
                break
            time.sleep(MOMENT)
        return found

    def _fault(self, name: str, files: dict) -> str:
        """What is wrong with the file `name`, of those that the manifest lists; empty if nothing is."""
        path, recorded = self.folder / name, files[name]
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                return "found a link or a folder, expected a file"
            if status.st_size != recorded["size"]:
                return f"found {status.st_size} bytes, expected {recorded['size']}"
            if digest_of(self.cache, path, status) != recorded["sha256"]:
                return "its content differs from the recorded SHA-256"
        except (FileNotFoundError, NotADirectoryError) as error:
            return f"found no file ({error.strerror}), expected {recorded['size']} bytes"
        except OSError as error:
            raise refused(path, error, CANNOT_READ) from error
        return ""

    def is_sound(self) -> bool:
        """Whether the manifest is sound and every file as it was written."""
        manifest = read_manifest(self.folder)
        return manifest is not None and not any(self._fault(name, manifest["files"]) for name in manifest["files"])

    def check(self) -> Path:
        """The artefact's folder, all files compared with their digests. Raises as `path`."""
        files = self.manifest["files"]
        for name in files:
            if self._fault(name, files):
                self.path(name)
        return self.folder

    def json(self, name: str, object_hook=None):
        """The JSON value in the file `name`."""
        return self.read(name, lambda path: json.loads(path.read_text(), object_hook=object_hook))

    def read(self, name: str, parse: Callable, errors: tuple[type[Exception], ...] = ()):
        """What `parse` makes of the path of the file `name`.

        A file that cannot be parsed, though its digest is right, was never right: the artefact is put aside, as by `path`.
        `errors` are those that `parse` raises for it beside PARSE_ERRORS.
        """
        path = self.path(name)
        try:
            return parse(path)
        except (*PARSE_ERRORS, *errors) as error:
            raise self._damaged(path, f"cannot be read ({error})", is_unreadable=True) from error

    def shards(self) -> list["Artefact"]:
        """The artefacts of a sharded stage's shards, in order."""
        return [Artefact(self.cache, self.stage, shard["key"]) for shard in self.json(SHARDS)]

    def _damaged(self, path: Path, found: str, is_unreadable: bool = False) -> DamagedArtefact:
        return DamagedArtefact(path, f"{path}: {found}; {put_aside(self.cache, path, is_unreadable)}")


def digest_of(cache: Path, path: Path, status: os.stat_result) -> str:
    """The digest of the file `path` of an artefact; asked of the system again only when the file's `status` is another.

    Raises OSError when it cannot be read.
    """
    state = str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    if state not in _digests:
        digest = DigestMemory(cache / MEMORY).of([path])[path]
        _digests[state] = digest_file(path) if digest == MISSING else digest
    return _digests[state]


_digests: dict[tuple, str] = {}  # by the state of the file


def artefact_folder(cache: Path, path: Path) -> Path | None:
    """The folder of the artefact that the file `path` is in; None for a file elsewhere."""
    path, base = Path(os.path.abspath(path)), os.path.abspath(cache)
    parts = path.relative_to(base).parts if path.is_relative_to(base) else ()
    is_key = len(parts) > 2 and re.fullmatch(f"[0-9a-f]{{{KEY_DIGITS}}}", parts[1])
    return cache.joinpath(*parts[:2]) if is_key else None


def put_aside(cache: Path, path: Path, is_unreadable: bool = False) -> str:
    """Moves the damaged artefact that `path` is in out of the way; returns what to do, as the end of a message.

    It is looked at once more under its lock, as another command may have made it anew. With `is_unreadable` it is known that a
    file cannot be read although its digest is right.
    """
    folder = artefact_folder(cache, path)
    if not folder:
        return "make it anew"
    if not folder.is_dir():
        return "the same command makes it again"
    name = f"{folder.parent.name}-{folder.name}"
    try:
        with locks.held(cache_folder(cache, LOCKS) / f"{name}.lock", wait=False) as is_mine:
            manifest = read_manifest(folder)
            is_sound = manifest and not is_unreadable and Artefact(cache, folder.parent.name, manifest["key"]).is_sound()
            if is_sound or not is_mine:
                return "another command has just made it anew, or does: give the same command again"
            place = cache_folder(cache, ASIDE)
            target = next(path for number in count() if not (path := place / f"{name}-{number}").exists())
            folder.rename(target)
            return f"its artefact was put aside, as {target}: the same command makes it again"
    except (OSError, UserError):
        return f"remove the folder {folder}, and the same command makes it again"
