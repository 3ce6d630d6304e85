"""A cache that several machines share: a folder, or a place of any kind that fsspec knows, such as a bucket.

    ac/STAGE/KEY.json      the manifest of an artefact, under its whole key; written last, it makes the artefact visible
    cas/ab/SHA256          each file once, by its digest

A key says what an artefact was made from, and nothing about its bytes. So whoever may write here decides what readers get, and
nothing is believed: a manifest must be sound and bear the whole key, the names of its files may lead nowhere else, and each file
must have the size and SHA-256 that the manifest says. Files arrive in the work folder, which is renamed into place at the end.
"""

import contextlib
import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from .artefacts import Artefact
from .disk import free_bytes, show
from .errors import UserError
from .manifest import FIELDS, MANIFEST, digest_files, parse_content
from .places import own_folder
from .storage import CANNOT_READ, refused
from .workshop import Workshop

BLOCK = 1 << 20
TRANSFERS = 8  # files at a time: most of the time of a small one is waiting
RENAMING = {"file", "local", "sftp", "ssh", "smb"}  # protocols where readers see a file grow, and renaming is one step
LARGEST_MANIFEST = 1 << 28  # bytes; that of 100,000 files has 15 MB
STAGE, DIGEST = re.compile(r"[A-Za-z]\w*", re.ASCII), re.compile("[0-9a-f]{64}")


class RemoteError(UserError):
    """Something is wrong with the remote cache: names the place."""


class WrongContent(RemoteError):
    """The remote cache holds something else than it should."""


class Remote:
    """The remote cache at `url`."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.files, root = _open(self.url)
        self.root = root.rstrip("/")
        protocol = self.files.protocol
        self._renames = bool(RENAMING & ({protocol} if isinstance(protocol, str) else set(protocol)))

    def manifest(self, stage: str, key: str) -> tuple[dict, bytes] | None:
        """The manifest of an artefact and its bytes; None if the artefact is not there. Raises RemoteError for a wrong one."""
        if not (STAGE.fullmatch(stage) and DIGEST.fullmatch(key)):
            raise RemoteError(f"{self.url}: {stage}/{key} cannot be an artefact's stage and key")
        place = f"{self.root}/ac/{stage}/{key}.json"
        with _naming(self._shown(place)):
            try:
                with self.files.open(place, "rb") as file:
                    content = file.read(LARGEST_MANIFEST + 1)
            except FileNotFoundError:
                return None
        manifest, is_sound = parse_content(content)
        if fault := _fault_of(manifest, is_sound, stage, key):
            raise WrongContent(f"{self._shown(place)}: {fault}; nothing was taken from it")
        assert manifest is not None
        return manifest, content

    def keys(self, stage: str) -> list[str]:
        """The keys of all artefacts of a stage."""
        place = f"{self.root}/ac/{stage}"
        with _naming(self._shown(place)):
            try:
                names = [path.rpartition("/")[2] for path in self.files.ls(place, detail=False)]
            except FileNotFoundError:
                return []
        return sorted(key for name in names if DIGEST.fullmatch(key := name.removesuffix(".json")) and name.endswith(".json"))

    def pull(self, artefact: Artefact) -> bool:
        """Brings `artefact` into its cache, unless it is there; returns False if the remote cache does not have it."""
        if artefact.exists():
            return True
        if (answer := self.manifest(artefact.stage, artefact.key)) is None:
            return False
        manifest, content = answer
        workshop = Workshop(artefact)
        with workshop.lock():
            if artefact.exists():
                return True
            try:
                workshop.open()
                _check_room(artefact, manifest["files"])
                for name in manifest["files"]:
                    _make_parents(workshop.files, name)
                _each(lambda name: self._download(workshop.files / name, **manifest["files"][name]), manifest["files"])
                workshop.install(content, manifest["files"])
            finally:
                workshop.close()
        return True

    def push(self, artefact: Artefact) -> bool:
        """Puts `artefact` into the remote cache, comparing its files with its manifest; returns False if it is there already.

        Raises RemoteError for a file that does not arrive whole; readers then do not see the artefact.
        """
        if self.manifest(artefact.stage, artefact.key) is not None:
            return False
        content = (artefact.folder / MANIFEST).read_bytes()
        manifest, is_sound = parse_content(content)
        if fault := _fault_of(manifest, is_sound, artefact.stage, artefact.key):
            raise RemoteError(f"{artefact.folder / MANIFEST}: {fault}; nothing was pushed")
        assert manifest is not None
        _each(lambda name: self._upload(artefact.folder / name, **manifest["files"][name]), manifest["files"])
        self._put(f"{self.root}/ac/{artefact.stage}/{artefact.key}.json", [content], hashlib.sha256(content).hexdigest())
        return True

    def _download(self, path: Path, *, size: int, sha256: str) -> None:
        place, digest, count = self._place(sha256), hashlib.sha256(), 0
        shown, what = self._shown(place), f"{size} bytes of {path.name}; nothing was taken from it"
        try:
            with open(path, "xb") as target:
                for block in self._blocks(place):
                    count += len(block)
                    if count > size:
                        raise WrongContent(f"{shown}: found more than the {what}")
                    digest.update(block)
                    target.write(block)
        except OSError as error:  # of this disk; those of the remote cache are RemoteErrors already
            raise refused(path, error) from error
        if count < size:
            raise WrongContent(f"{shown}: found {count}, expected {what}")
        if digest.hexdigest() != sha256:
            raise WrongContent(f"{shown}: its content differs from its SHA-256; nothing was taken from it")

    def _blocks(self, place: str) -> Iterator[bytes]:
        with _naming(self._shown(place)), self.files.open(place, "rb") as source:
            while block := source.read(BLOCK):
                yield block

    def _upload(self, path: Path, *, size: int, sha256: str) -> None:
        place = self._place(sha256)
        with _naming(self._shown(place)):
            if self.files.exists(place) and self._size(place) == size:
                return
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            raise refused(path, error, CANNOT_READ) from error
        with open(descriptor, "rb") as file:
            self._put(place, iter(lambda: file.read(BLOCK), b""), sha256)

    def _put(self, place: str, blocks: Iterable[bytes], sha256: str) -> None:
        """Writes a file that readers see whole or not at all: a bucket shows it when it is complete; elsewhere it is renamed."""
        digest, size = hashlib.sha256(), 0
        beside = f"{place}.{uuid.uuid4().hex}.part" if self._renames else place
        shown = self._shown(place)
        with _naming(shown):
            self.files.makedirs(place.rpartition("/")[0], exist_ok=True)
            try:
                with self.files.open(beside, "wb") as target:
                    for block in blocks:
                        digest.update(block)
                        size += len(block)
                        target.write(block)
                if (arrived := self._size(beside)) != size:
                    raise RemoteError(f"{shown}: {arrived} bytes arrived, {size} were sent; push again")
                if digest.hexdigest() != sha256:
                    raise RemoteError(f"{shown}: the file here is damaged, nothing was pushed; `rcnn-cache verify` names it")
                if self._renames:
                    self.files.mv(beside, place)
            except BaseException:
                with contextlib.suppress(Exception):
                    self.files.rm(beside)
                raise

    def _shown(self, place: str) -> str:
        """A place as an address: paths in a bucket do not say where they are."""
        return place.replace(self.root, self.url, 1)

    def _size(self, place: str) -> int:
        """The bytes of a file as they are now."""
        self.files.invalidate_cache(place.rpartition("/")[0])
        return self.files.size(place)

    def _place(self, sha256: str) -> str:
        return f"{self.root}/cas/{sha256[:2]}/{sha256}"


def _open(url: str) -> tuple[Any, str]:
    """fsspec's file system for `url`, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise UserError("--remote: needs the extra `remote`: pip install -e '.[remote]'") from error
    try:
        return url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:  # a driver that is not installed; an unknown protocol
        raise RemoteError(f"--remote {url}: {_reason(error)}") from error


@contextlib.contextmanager
def _naming(place: str) -> Iterator[None]:
    """Turns what a file system's driver raises into RemoteError that names `place`. Each driver has errors of its own."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise WrongContent(f"{place}: missing in the remote cache") from error
    except Exception as error:
        raise RemoteError(f"{place}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _each(transfer: Callable, names: Iterable[str]) -> None:
    """Calls `transfer(name)` for each name, several at a time; the first error ends it."""
    with ThreadPoolExecutor(TRANSFERS) as pool:
        transfers = [pool.submit(transfer, name) for name in names]
        try:
            for future in transfers:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _fault_of(manifest: dict | None, is_sound: bool, stage: str, key: str) -> str:
    """Why `manifest` cannot be that of the artefact; empty if it can."""
    if manifest is None or not is_sound or not FIELDS.keys() <= manifest.keys():
        return f"no sound {MANIFEST}"
    if (manifest["stage"], manifest["key"]) != (stage, key):
        return f"the manifest of {manifest['stage']} with the key {manifest['key']}, expected {stage} with the key {key}"
    for name, file in manifest["files"].items():
        if not _stays_inside(name) or not DIGEST.fullmatch(file["sha256"]) or file["size"] < 0:
            return f"names the file {name!r}, which no artefact can have"
    if manifest["digest"] != digest_files(manifest["files"]):
        return "its digest does not match the files that it lists"
    return ""


def _stays_inside(name: str) -> bool:
    """Whether a file of this name is in the artefact's folder, and is not the manifest."""
    parts = PurePosixPath(name).parts
    return bool(parts) and "/".join(parts) == name and ".." not in parts and "\0" not in name and name != MANIFEST


def _make_parents(folder: Path, name: str) -> None:
    for parent in reversed(PurePosixPath(name).parents[:-1] if "/" in name else ()):
        own_folder(folder / parent)


def _check_room(artefact: Artefact, files: dict) -> None:
    """Raises UserError where the disk has no room for `files`: it would be full before the last of them."""
    size, free = sum(file["size"] for file in files.values()), free_bytes(artefact.cache)
    if size > free:
        raise UserError(f"{artefact.cache}: {artefact} needs {show(size)}; {show(free)} are free; free some space")
