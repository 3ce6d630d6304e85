"""Artefacts: one folder a task, `cache/<stage>/<first 12 hex digits of the key>/`, with its files and a `manifest.json`.

An artefact is built in `cache/.work/<stage>-<key>/` and renamed into place as the last step, so that a run killed at any moment
leaves a whole artefact or none.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PipelineError
from tasks import locks
from tasks.digests import digest_file, digest_json

MANIFEST = "manifest.json"
SHARDS = "shards.json"  # the list of a sharded stage's shards
KEY_DIGITS = 12
ADVICE = "see `rcnn-cache verify`, remove the folder and run again"


class DamagedArtefact(PipelineError):
    """An artefact that is not what its manifest says."""


class Artefact:
    """The folder of one finished task. `key` is the whole key, 64 hex digits."""

    def __init__(self, cache: Path, stage: str, key: str):
        self.cache, self.stage, self.key = Path(cache), stage, key
        self.folder = self.cache / stage / key[:KEY_DIGITS]

    def __repr__(self) -> str:
        return f"{self.stage}/{self.key[:KEY_DIGITS]}"

    def exists(self) -> bool:
        """Whether the folder is there with a readable manifest that bears the whole key."""
        return (read_manifest(self.folder) or {}).get("key") == self.key

    @property
    def manifest(self) -> dict:
        manifest = read_manifest(self.folder)
        if manifest is None or manifest.get("key") != self.key:
            raise DamagedArtefact(f"{self.folder}: no manifest that bears the key {self.key}; {ADVICE}")
        return manifest

    def path(self, name: str) -> Path:
        """The path of the artefact's file `name`. Raises DamagedArtefact when it is not there in the size recorded."""
        recorded = self.manifest["files"].get(name)
        path = self.folder / name
        if recorded is None or not path.is_file() or path.stat().st_size != recorded["size"]:
            found = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
            expected = f"{recorded['size']} bytes" if recorded else "no such file in its manifest"
            raise DamagedArtefact(f"{path}: found {found}, expected {expected}; {ADVICE}")
        return path

    def json(self, name: str, object_hook=None):
        with self._reading(name) as path:
            return json.loads(path.read_text(), object_hook=object_hook)

    def arrays(self, name: str) -> dict:
        """The arrays of an .npz file."""
        import numpy as np

        with self._reading(name) as path, np.load(path, allow_pickle=False) as data:
            return dict(data)

    def tensors(self, name: str) -> dict:
        """The tensors of a safetensors file."""
        from safetensors.torch import load_file

        with self._reading(name) as path:
            return load_file(path)

    def shards(self) -> list["Artefact"]:
        """The artefacts of a sharded stage's shards, in order."""
        return [Artefact(self.cache, self.stage, shard["key"]) for shard in self.json(SHARDS)]

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        path = self.path(name)
        try:
            yield path
        except Exception as error:
            raise DamagedArtefact(f"{path}: cannot be read ({error}); {ADVICE}") from error


def read_manifest(folder: Path) -> dict | None:
    """The manifest in `folder`; None where there is none that can be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) else None


def describe_files(folder: Path) -> dict[str, dict]:
    """Size and SHA-256 of each file below `folder`, by its relative path; the manifest excepted."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: {"size": path.stat().st_size, "sha256": digest_file(path)} for name, path in names.items() if name != MANIFEST}


def digest_files(files: dict[str, dict]) -> str:
    """The artefact's digest: over its sorted (path, size, SHA-256)."""
    return digest_json(sorted([name, file["size"], file["sha256"]] for name, file in files.items()))


class Workshop:
    """Where one artefact is built: `files`, which become the artefact, and `checkpoint`, which outlives a killed run."""

    def __init__(self, artefact: Artefact):
        self.artefact = artefact
        self.name = f"{artefact.stage}-{artefact.key[:KEY_DIGITS]}"
        self.folder = artefact.cache / ".work" / self.name
        self.files = self.folder / "files"
        self.checkpoint = self.folder / "checkpoint"

    @contextlib.contextmanager
    def lock(self, wait: bool = True, on_wait=lambda holder: None) -> Iterator[bool]:
        with locks.held(self.artefact.cache / ".locks" / f"{self.name}.lock", wait, on_wait) as held:
            yield held

    def open(self) -> None:
        """Clears what a killed run left, but for the checkpoints of this very key."""
        owner = self.folder / "key"
        if not owner.is_file() or owner.read_text() != self.artefact.key:
            shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("files", "aside"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.files.mkdir(parents=True)
        self.checkpoint.mkdir(exist_ok=True)
        owner.write_text(self.artefact.key)

    def publish(self, manifest: dict) -> None:
        """Completes `manifest` with the files, flushes everything and moves the folder into place."""
        files = describe_files(self.files)
        names = {"key": self.artefact.key, "stage": self.artefact.stage}
        manifest = {**names, **manifest, "digest": digest_files(files), "files": files}
        (self.files / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        for path in [*self.files.rglob("*"), self.files]:
            _flush(path)
        target = self.artefact.folder
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = self.folder / "aside"
        if target.exists():
            target.rename(aside)
        self.files.rename(target)
        _flush(target.parent)
        shutil.rmtree(self.folder)

    def close(self) -> None:
        """Throws the unfinished files away; checkpoints stay for the next run."""
        shutil.rmtree(self.files, ignore_errors=True)
        if not (self.checkpoint.is_dir() and any(self.checkpoint.iterdir())):
            shutil.rmtree(self.folder, ignore_errors=True)


def sweep(cache: Path) -> None:
    """Removes what killed runs left in the work folder and nobody holds; checkpoints stay."""
    for folder in (cache / ".work").glob("*-*"):
        stage, _, digits = folder.name.rpartition("-")
        workshop = Workshop(Artefact(cache, stage, digits))
        with workshop.lock(wait=False) as held:
            if held:
                shutil.rmtree(folder / "aside", ignore_errors=True)
                workshop.close()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
