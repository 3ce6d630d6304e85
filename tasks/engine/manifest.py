"""`manifest.json` of an artefact: how it is written, sealed and read."""

import errno
import hashlib
import json
import os
import re
import stat
from pathlib import Path

from .digests import digest_file, digest_json
from .errors import UserError
from .storage import CANNOT_READ, refused

MANIFEST = "manifest.json"
# Manifests of format 1 had no seal.
FORMAT = 2
FIELDS: dict[str, type | tuple[type, ...]] = {
    "key": str, "stage": str, "version": int, "parameters": dict, "settings": dict, "inputs": dict, "outside": dict,
    "started": (int, float), "seconds": (int, float), "peak_memory": (int, float), "figures": dict, "packages": dict,
    "digest": str, "files": dict,
}
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR)  # nothing, a link, a device, a folder
LARGEST = 1e18  # bound of all numbers; Python's integers have no bound, floats do
DEEPEST = 50  # lists within lists; a hostile file could have more than Python can handle
SEAL = re.compile(rb',\n "seal": "([0-9a-f]{64})"\n\}\n\Z')


def seal(manifest: dict) -> bytes:
    """The bytes of `manifest.json`. The last entry is the SHA-256 of all bytes before it, so that any damage shows."""
    body = json.dumps({"format": FORMAT, **manifest}, indent=1).removesuffix("\n}").encode()
    return body + f',\n "seal": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def read_manifest(folder: Path) -> dict | None:
    """The manifest in `folder`; None if it is missing or damaged."""
    manifest, is_sound = parse_manifest(folder)
    return manifest if is_sound else None


def parse_manifest(folder: Path) -> tuple[dict | None, bool]:
    """The manifest in `folder` (None if it cannot be parsed), and whether it is as it was written.

    Raises UserError when the system refuses to read it: then nothing is known about the artefact.
    """
    try:
        content = _read_plain(folder / MANIFEST)
    except OSError as error:
        if error.errno in NO_FILE:
            return None, False
        raise refused(folder / MANIFEST, error, CANNOT_READ) from error
    return parse_content(content)


def parse_content(content: bytes) -> tuple[dict | None, bool]:
    """As `parse_manifest`, for the bytes of a `manifest.json`."""
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError):
        return None, False
    if not _is_well_formed(manifest):
        return None, False
    if "seal" not in manifest and "format" not in manifest:
        return manifest, True  # format 1
    sealed = SEAL.search(content)
    return manifest, sealed is not None and hashlib.sha256(content[: sealed.start()]).hexdigest() == sealed[1].decode()


def _is_well_formed(manifest) -> bool:
    """Whether each field has the type that its readers expect; the file may come from anybody."""
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict) or not _is_bounded(manifest, DEEPEST):
        return False
    if not all(isinstance(manifest[name], kind) for name, kind in FIELDS.items() if name in manifest):
        return False
    rows = [(file, {"size": int, "sha256": str}) for file in manifest["files"].values()]
    rows += [(source, {"stage": str, "key": str, "digest": str}) for source in manifest.get("inputs", {}).values()]
    rows += [(manifest.get("settings", {}), dict.fromkeys(manifest.get("settings", {}), str))]
    return all(isinstance(row, dict) and isinstance(row.get(name), kind) for row, kinds in rows for name, kind in kinds.items())


def _is_bounded(value, depth: int) -> bool:
    """Whether `value` is no deeper than `depth`, and its numbers are small enough to be summed and shown."""
    if isinstance(value, (dict, list)):
        return depth > 0 and all(_is_bounded(item, depth - 1) for item in (value.values() if isinstance(value, dict) else value))
    return not isinstance(value, (int, float)) or abs(value) < LARGEST  # false for NaN


def _read_plain(path: Path) -> bytes:
    """The content of a file. Raises OSError for a link, a device and the like, without waiting for it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENXIO, "not a file", str(path))
        return file.read()


def describe_files(folder: Path) -> dict[str, dict]:
    """Size and SHA-256 of each file below `folder`, by relative path, without the manifest.

    Raises UserError when it contains anything but files and folders.
    """
    described = {}
    for place, folders, names in os.walk(folder):
        for name in [*names, *(name for name in folders if os.path.islink(os.path.join(place, name)))]:
            path = Path(place, name)
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path}: neither a file nor a folder; an artefact may contain nothing else")
            described[path.relative_to(folder).as_posix()] = {"size": status.st_size, "sha256": digest_file(path)}
    described.pop(MANIFEST, None)
    return dict(sorted(described.items()))


def digest_files(files: dict[str, dict]) -> str:
    """The artefact's digest, over the sorted (path, size, SHA-256) of its files."""
    return digest_json(sorted([name, file["size"], file["sha256"]] for name, file in files.items()))
