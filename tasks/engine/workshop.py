"""Where artefacts are built: in `cache/.work/<stage>-<key>/`, which is renamed into place as the last step.

So a run that is killed at any moment leaves a whole artefact or none.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from . import locks
from .artefacts import KEY_DIGITS, LOCKS, MEMORY, Artefact
from .digests import DigestMemory
from .manifest import MANIFEST, describe_files, digest_files, seal
from .places import cache_folder, own_folder, refuse_link
from .storage import write_file

WORK = ".work"  # folder in the cache for unfinished artefacts


class Workshop:
    """The folder where one artefact is built: `files` becomes the artefact; `checkpoint` survives a killed run."""

    def __init__(self, artefact: Artefact):
        self.artefact = artefact
        self.name = f"{artefact.stage}-{artefact.key[:KEY_DIGITS]}"
        self.folder = artefact.cache / WORK / self.name
        self.files = self.folder / "files"
        self.checkpoint = self.folder / "checkpoint"

    @contextlib.contextmanager
    def lock(self, wait: bool = True, on_wait=lambda holder: None) -> Iterator[bool]:
        with locks.held(cache_folder(self.artefact.cache, LOCKS) / f"{self.name}.lock", wait, on_wait) as held:
            yield held

    def open(self) -> None:
        """Removes what a killed run left, except the checkpoints of exactly this key."""
        cache_folder(self.artefact.cache, WORK)
        refuse_link(self.folder)
        owner = self.folder / "key"
        refuse_link(owner)
        if not owner.is_file() or owner.read_text(errors="replace") != self.artefact.key:
            remove(self.folder)
        for name in ("files", "aside"):
            remove(self.folder / name)
        for folder in (self.folder, self.files, self.checkpoint):
            own_folder(folder)
        write_file(owner, self.artefact.key)

    def write(self, name: str, content: bytes | str) -> None:
        """Writes the artefact's file `name`; text as UTF-8."""
        write_file(self.files / name, content)

    def publish(self, manifest: dict) -> None:
        """Completes `manifest` with the files, and moves the folder into place."""
        files = describe_files(self.files)
        names = {"key": self.artefact.key, "stage": self.artefact.stage}
        self.install(seal({**names, **manifest, "digest": digest_files(files), "files": files}), files)

    def install(self, manifest: bytes, files: dict[str, dict]) -> None:
        """Writes the finished `manifest` of `files`, flushes everything and moves the folder into place."""
        artefact = self.artefact
        write_file(self.files / MANIFEST, manifest)
        for path in (*self.files.rglob("*"), self.files):
            _flush(path)
        target = artefact.folder
        cache_folder(artefact.cache, artefact.stage)
        refuse_link(target)
        if target.exists():
            target.rename(self.folder / "aside")
        self.files.rename(target)
        _flush(target.parent)
        DigestMemory(artefact.cache / MEMORY).remember({target / name: file["sha256"] for name, file in files.items()})
        remove(self.folder)

    def close(self) -> None:
        """Removes the unfinished files; checkpoints stay for the next run."""
        remove(self.files)
        if not (self.checkpoint.is_dir() and any(self.checkpoint.iterdir())):
            remove(self.folder)


def sweep(cache: Path) -> None:
    """Removes work and locks that killed runs left and nobody holds. Keeps checkpoints and whatever the engine did not make.

    Raises UserError for a link in place of a folder or a lock.
    """
    refuse_link(cache / LOCKS)
    for path in (cache / LOCKS).glob("*.lock"):
        with locks.held(path, wait=False):
            pass  # `held` removes the file at the end
    refuse_link(cache / WORK)
    for folder in (cache / WORK).glob("*"):
        refuse_link(folder)
        stage, _, digits = folder.name.rpartition("-")
        if not stage or not re.fullmatch(f"[0-9a-f]{{{KEY_DIGITS}}}", digits):
            continue
        workshop = Workshop(Artefact(cache, stage, digits))
        with workshop.lock(wait=False) as held:
            if held:
                remove(folder / "aside")
                workshop.close()


def remove(folder: Path) -> None:
    """Removes a folder of the engine with its content; of a link only the link itself."""
    if os.path.islink(folder):
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


