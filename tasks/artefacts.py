"""Artefacts: one folder a task, `cache/<stage>/<first 12 hex digits of the key>/`, with its files and a `manifest.json`.

Every file is compared with the digest in the manifest when it is first read, and again when it changed since. A damaged artefact
is put aside, so that the same command makes it again.
"""

import contextlib
import json
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.writing import DamagedFile
from tasks.digests import DigestMemory
from tasks.manifest import MANIFEST, describe_files, digest_files, read_manifest
from tasks.places import cache_folder, refuse_link

SHARDS = "shards.json"  # the list of a sharded stage's shards
KEY_DIGITS = 12
MEMORY = ".digests.sqlite"  # what is known of files, in the cache
ASIDE = ".damaged"  # folder of damaged artefacts, in the cache
MOST_ASIDE = 1000  # copies of one artefact there
PARSE_ERRORS = (ValueError, KeyError, EOFError, RecursionError, zipfile.BadZipFile)

__all__ = ["Artefact", "DamagedArtefact", "artefact_folder", "describe_files", "digest_files", "digest_of", "put_aside"]


class DamagedArtefact(DamagedFile):
    """An artefact that is not what its manifest says."""


class Artefact:
    """The folder of one finished task. `key` is the whole key, 64 hex digits."""

    def __init__(self, cache: Path, stage: str, key: str):
        self.cache, self.stage, self.key = Path(cache), stage, key
        self.folder = self.cache / stage / key[:KEY_DIGITS]

    def __repr__(self) -> str:
        return f"{self.stage}/{self.key[:KEY_DIGITS]}"

    def exists(self) -> bool:
        """Whether the folder is there with a sound manifest that bears the whole key. Raises PipelineError for links."""
        refuse_link(self.folder.parent)
        refuse_link(self.folder)
        return (read_manifest(self.folder) or {}).get("key") == self.key

    @property
    def manifest(self) -> dict:
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise self._damaged(self.folder / MANIFEST, f"found no sound manifest, expected one with the key {self.key}")
        if manifest.get("key") != self.key:
            raise DamagedArtefact(self.folder, f"{self.folder}: of the key {manifest.get('key')}, expected {self.key}; run again")
        return manifest

    def path(self, name: str) -> Path:
        """The path of the artefact's file `name`, compared with its digest.

        Raises DamagedArtefact when it is not there or not what was written; the artefact is put aside then.
        """
        path, recorded = self.folder / name, self.manifest["files"].get(name)
        while fault := self._fault(path, recorded):
            before, recorded = recorded, self.manifest["files"].get(name)
            if recorded == before:
                raise self._damaged(path, fault)
            # Another run has just made the artefact anew.
        if recorded is None:
            advice = f"--force {self.stage} makes it again"
            raise DamagedArtefact(path, f"{path}: no such file in the artefact's {MANIFEST}; {advice}")
        return path

    def _fault(self, path: Path, recorded: dict | None) -> str:
        """What is wrong with the file `path`, of which the manifest has `recorded`; empty if nothing is."""
        if recorded is None:
            return ""
        try:
            status = path.lstat()
        except OSError as error:
            return f"found no file ({error.strerror}), expected {recorded['size']} bytes"
        if not stat.S_ISREG(status.st_mode):
            return "found a link or a folder, expected a file"
        if status.st_size != recorded["size"]:
            return f"found {status.st_size} bytes, expected {recorded['size']}"
        if digest_of(self.cache, path, status) != recorded["sha256"]:
            return "its content differs from the recorded SHA-256"
        return ""

    def check(self) -> Path:
        """The artefact's folder, all files compared with their digests. Raises as `path`."""
        for name in self.manifest["files"]:
            self.path(name)
        return self.folder

    def json(self, name: str, object_hook=None):
        with self._reading(name) as path:
            return json.loads(path.read_text(), object_hook=object_hook)

    def arrays(self, name: str) -> dict:
        """The arrays of an .npz file."""
        from pipeline.npz import load_arrays

        with self._reading(name) as path:
            return load_arrays(path)

    def tensors(self, name: str) -> dict:
        """The tensors of a safetensors file."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        with self._reading(name, SafetensorError) as path:
            return load_file(path)

    def shards(self) -> list["Artefact"]:
        """The artefacts of a sharded stage's shards, in order."""
        return [Artefact(self.cache, self.stage, shard["key"]) for shard in self.json(SHARDS)]

    @contextlib.contextmanager
    def _reading(self, name: str, *errors: type[Exception]) -> Iterator[Path]:
        path = self.path(name)
        try:
            yield path
        except (*PARSE_ERRORS, *errors) as error:
            raise self._damaged(path, f"cannot be read ({error})") from error

    def _damaged(self, path: Path, found: str) -> DamagedArtefact:
        return DamagedArtefact(path, f"{path}: {found}; {put_aside(self.cache, path)}")


def digest_of(cache: Path, path: Path, status: os.stat_result) -> str:
    """The digest of the file `path` of an artefact; asked of the system again only when the file's `status` is another."""
    state = str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    if state not in _digests:
        _digests[state] = DigestMemory(cache / MEMORY).of([path])[path]
    return _digests[state]


_digests: dict[tuple, str] = {}  # by the state of the file


def artefact_folder(cache: Path, path: Path) -> Path | None:
    """The folder of the artefact that the file `path` is in; None for a file elsewhere."""
    path, base = Path(os.path.abspath(path)), os.path.abspath(cache)
    parts = path.relative_to(base).parts if path.is_relative_to(base) else ()
    is_key = len(parts) > 2 and re.fullmatch(f"[0-9a-f]{{{KEY_DIGITS}}}", parts[1])
    return cache.joinpath(*parts[:2]) if is_key else None


def put_aside(cache: Path, path: Path) -> str:
    """Moves the damaged artefact that `path` is in out of the way; returns what to do, as the end of a message."""
    folder = artefact_folder(cache, path)
    if not folder:
        return "make it anew"
    if not folder.is_dir():
        return "the same command makes it again"
    try:
        place = cache_folder(cache, ASIDE)
        for number in range(MOST_ASIDE):
            target = place / f"{folder.parent.name}-{folder.name}-{number}"
            if not target.exists():
                folder.rename(target)
                return f"its artefact was put aside, as {target}: the same command makes it again"
    except (OSError, PipelineError):
        pass
    return f"remove the folder {folder}, and the same command makes it again"
