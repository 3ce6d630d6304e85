"""Artefacts: one folder per task, `cache/<stage>/<first 12 hex digits of the key>/`, with its files and a `manifest.json`.

Every file is compared with its digest in the manifest when it is first read, and again after it changed. A damaged artefact is
moved aside, so that the same command makes it again.
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
WHOLE = -1  # stands for the whole stage where a shard has its number
KEY_DIGITS = 12
MEMORY = ".digests.sqlite"  # file in the cache that remembers digests of files
ASIDE = ".damaged"  # folder in the cache for damaged artefacts
LOCKS = ".locks"  # folder in the cache for locks
LOOKS, MOMENT = 3, 0.05  # an artefact that seems damaged is checked so often, with so many seconds between
PARSE_ERRORS: tuple[type[Exception], ...] = (ValueError, KeyError, EOFError, RecursionError, zipfile.BadZipFile)

__all__ = ["Artefact", "DamagedArtefact", "artefact_folder", "describe_files", "digest_files", "digest_of", "put_aside"]


class DamagedArtefact(UserError):
    """The file `path` of an artefact differs from what the manifest says."""

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
        """Whether the folder exists and holds a sound manifest with the whole key. Raises UserError for links."""
        refuse_link(self.folder.parent)
        refuse_link(self.folder)
        return (read_manifest(self.folder) or {}).get("key") == self.key

    @property
    def manifest(self) -> dict:
        manifest = self._look(lambda: read_manifest(self.folder), lambda manifest: manifest is not None)
        if manifest is None:
            raise self._damaged(self.folder / MANIFEST, f"found no sound manifest, expected one with the key {self.key}")
        if manifest.get("key") != self.key:
            raise DamagedArtefact(self.folder, f"{self.folder}: found key {manifest.get('key')}, expected {self.key}; run again")
        return manifest

    def path(self, name: str) -> Path:
        """The path of the artefact's file `name`, after a check of its digest.

        Raises DamagedArtefact when the file is missing or has changed, and moves the artefact aside. Raises UserError when the
        system refuses to read the file.
        """
        path = self.folder / name
        if name not in self.manifest["files"]:
            advice = f"--force {self.stage} makes it again"
            raise DamagedArtefact(path, f"{path}: no such file in the artefact's {MANIFEST}; {advice}")
        if fault := self._look(lambda: self._fault(name, self.manifest["files"]), lambda fault: not fault):
            raise self._damaged(path, fault)
        return path

    @staticmethod
    def _look(look, is_right):
        """The value of `look()`; if it is not right, another after a moment: a command may be making the artefact anew."""
        for _ in range(LOOKS):
            value = look()
            if is_right(value):
                break
            time.sleep(MOMENT)
        return value

    def _fault(self, name: str, files: dict) -> str:
        """What is wrong with the file `name`; empty if nothing is. `files` are those that the manifest lists."""
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
        """Whether the manifest is sound and every file is as it was written."""
        manifest = read_manifest(self.folder)
        return manifest is not None and not any(self._fault(name, manifest["files"]) for name in manifest["files"])

    def check(self) -> Path:
        """The artefact's folder, after a check of the digests of all files. Raises the errors that `path` raises."""
        files = self.manifest["files"]
        for name in files:
            if self._fault(name, files):
                self.path(name)
        return self.folder

    def json(self, name: str, object_hook=None):
        """The JSON value in the file `name`."""
        return self.read(name, lambda path: json.loads(path.read_text(), object_hook=object_hook))

    def read(self, name: str, parse: Callable, errors: tuple[type[Exception], ...] = ()):
        """The value of `parse(path)` for the file `name`.

        A file that has the right digest and cannot be parsed was wrong from the start: the artefact is moved aside, as in `path`.
        `parse` raises PARSE_ERRORS or one of `errors` for such a file.
        """
        path = self.path(name)
        try:
            return parse(path)
        except (*PARSE_ERRORS, *errors) as error:
            raise self._damaged(path, f"cannot be read ({error})", is_unreadable=True) from error

    def inputs(self) -> dict[str, "Artefact"]:
        """The artefacts that this one was made from, by the names that its manifest has for them."""
        return self.inputs_in(self.manifest)

    def inputs_in(self, manifest: dict) -> dict[str, "Artefact"]:
        """As `inputs`, from its `manifest`."""
        return {name: Artefact(self.cache, source["stage"], source["key"]) for name, source in manifest["inputs"].items()}

    def shards(self) -> list["Artefact"]:
        """The artefacts of a sharded stage's shards, in order."""
        return [Artefact(self.cache, self.stage, shard["key"]) for shard in self.json(SHARDS)]

    def _damaged(self, path: Path, fault: str, is_unreadable: bool = False) -> DamagedArtefact:
        return DamagedArtefact(path, f"{path}: {fault}; {put_aside(self.cache, path, is_unreadable)}")


def digest_of(cache: Path, path: Path, status: os.stat_result) -> str:
    """The digest of the file `path` of an artefact. It is kept in memory until the file's `status` changes.

    Raises OSError when the file cannot be read.
    """
    state = str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    if state not in _digests:
        digest = DigestMemory(cache / MEMORY).of([path])[path]
        _digests[state] = digest_file(path) if digest == MISSING else digest
    return _digests[state]


_digests: dict[tuple, str] = {}  # keyed by the state of the file


def artefact_folder(cache: Path, path: Path) -> Path | None:
    """The folder of the artefact that contains the file `path`; None for a file elsewhere."""
    path, base = Path(os.path.abspath(path)), os.path.abspath(cache)
    parts = path.relative_to(base).parts if path.is_relative_to(base) else ()
    is_key = len(parts) > 2 and re.fullmatch(f"[0-9a-f]{{{KEY_DIGITS}}}", parts[1])
    return cache.joinpath(*parts[:2]) if is_key else None


def put_aside(cache: Path, path: Path, is_unreadable: bool = False) -> str:
    """Moves the damaged artefact that contains `path` aside; returns advice for the user, which ends a message.

    First the artefact is checked again under its lock: another command may have made it anew. `is_unreadable` says that a file
    cannot be read although its digest is right.
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
                return "another command has just made it anew, or is doing so: give the same command again"
            place = cache_folder(cache, ASIDE)
            target = next(path for number in count() if not (path := place / f"{name}-{number}").exists())
            folder.rename(target)
            return f"its artefact was moved aside, to {target}: the same command makes it again"
    except (OSError, UserError):
        return f"remove the folder {folder}, and the same command makes it again"
