"""Where artefacts are built: in a folder of `cache/.work`, which is renamed into place as the last step.

So a run that is killed at any moment leaves a whole artefact or none. Each builder has its own folder; see `work_folders`.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from . import locks
from .artefacts import KEY_DIGITS, LOCKS, MEMORY, Artefact
from .digests import DigestMemory
from .manifest import MANIFEST, describe_files, digest_files, seal
from .places import cache_folder, own_folder, refuse_link
from .storage import write_file
from .work_folders import WORK, artefact_of, is_of_other_host, may_be_in_use, own_name

__all__ = ["LOCKS", "WORK", "Workshop", "remove", "sweep"]


class Workshop:
    """The folder where one artefact is built: `files` becomes the artefact; `checkpoint` survives a killed run."""

    def __init__(self, artefact: Artefact):
        self.artefact = artefact
        self.name = f"{artefact.stage}-{artefact.key[:KEY_DIGITS]}"
        self.left = artefact.cache / WORK / self.name  # what an ended builder left
        self.folder = self.left.with_name(own_name(self.name))
        self.files = self.folder / "files"
        self.checkpoint = self.folder / "checkpoint"

    @contextlib.contextmanager
    def lock(self, wait: bool = True, on_wait=lambda holder: None) -> Iterator[bool]:
        with locks.held(cache_folder(self.artefact.cache, LOCKS) / f"{self.name}.lock", wait, on_wait) as held:
            yield held

    def open(self) -> None:
        """Makes the folder. It has the checkpoint that an ended builder of exactly this key left, and nothing else of it."""
        cache_folder(self.artefact.cache, WORK)
        self.found = _identity(self.artefact.folder)
        others = sorted(path for path in self.left.parent.iterdir() if path.name.startswith(f"{self.name}."))
        for folder in (self.folder, self.left, *others):
            if os.path.lexists(folder):
                self._take_over(folder)
        for name in ("files", "aside"):
            remove(self.folder / name)
        for folder in (self.folder, self.files, self.checkpoint):
            own_folder(folder)
        write_file(self.folder / "key", self.artefact.key)

    def _take_over(self, folder: Path) -> None:
        """Takes the checkpoint of a builder that has ended, and removes the rest. Leaves the folder of a living one alone."""
        for path in (folder, folder / "key"):
            refuse_link(path)
        owner = folder / "key"
        is_of_this_key = owner.is_file() and owner.read_text(errors="replace") == self.artefact.key
        if is_of_this_key:
            refuse_link(folder / "checkpoint")
        is_wanted = is_of_this_key and has_checkpoint(folder) and not self.folder.exists()
        if folder == self.folder:
            if not is_of_this_key:
                remove(folder)
        elif may_be_in_use(folder):
            if is_wanted and is_of_other_host(folder):
                # Its host may be dead. A checkpoint is renamed into place, so a copy of it is whole.
                with contextlib.suppress(OSError):
                    shutil.copytree(folder / "checkpoint", own_folder(self.folder) / "checkpoint", symlinks=True)
        elif is_wanted:
            with contextlib.suppress(FileNotFoundError):  # another builder was first
                folder.rename(self.folder)
        else:
            remove(folder)

    def write(self, name: str, content: bytes | str) -> None:
        """Writes the artefact's file `name`; text as UTF-8."""
        write_file(self.files / name, content)

    def publish(self, manifest: dict) -> None:
        """Completes `manifest` with the files, and moves the folder into place."""
        files = describe_files(self.files)
        names = {"key": self.artefact.key, "stage": self.artefact.stage}
        self.install(seal({**names, **manifest, "digest": digest_files(files), "files": files}), files)

    def install(self, manifest: bytes, files: dict[str, dict]) -> None:
        """Writes the finished `manifest` of `files`, flushes everything and moves the folder into place.

        Where locks do not work, another builder may have been first: then its artefact stays.
        """
        artefact = self.artefact
        write_file(self.files / MANIFEST, manifest)
        for path in (*self.files.rglob("*"), self.files):
            _flush(path)
        target = artefact.folder
        cache_folder(artefact.cache, artefact.stage)
        refuse_link(target)
        if self._move_into_place():
            _flush(target.parent)
            DigestMemory(artefact.cache / MEMORY).remember({target / name: file["sha256"] for name, file in files.items()})
        remove(self.folder)

    def _move_into_place(self) -> bool:
        """Renames the finished files; returns whether no other builder was first."""
        target = self.artefact.folder
        if self.found and _identity(target) == self.found:
            target.rename(self.folder / "aside")
        try:
            self.files.rename(target)  # fails if the folder is there by now
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        return True

    def close(self) -> None:
        """Removes the unfinished files; checkpoints stay for the next run."""
        tidy(self.folder, self.left)


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
        if (name := artefact_of(folder)) is None:
            continue
        with locks.held(cache_folder(cache, LOCKS) / f"{name}.lock", wait=False) as held:
            if held and not may_be_in_use(folder):
                remove(folder / "aside")
                tidy(folder, folder.with_name(name))


def tidy(folder: Path, left: Path) -> None:
    """Removes a work folder that is no longer in use, but leaves its checkpoint, if it has one, to the next builder as `left`."""
    remove(folder / "files")
    if not has_checkpoint(folder):
        remove(folder)
    elif folder != left:
        try:
            folder.rename(left)
        except OSError:  # another builder has left one as well
            remove(folder)


def has_checkpoint(folder: Path) -> bool:
    checkpoint = folder / "checkpoint"
    return checkpoint.is_dir() and any(checkpoint.iterdir())


def remove(folder: Path) -> None:
    """Removes a folder of the engine with its content; of a link only the link itself."""
    if os.path.islink(folder):
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _identity(folder: Path) -> tuple[int, int] | None:
    """What tells one folder from another that has its name later; None if there is none."""
    try:
        status = os.lstat(folder)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


