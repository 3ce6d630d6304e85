"""`manifest.json` of an artefact: how it is written, sealed and read."""

import hashlib
import json
import os
import re
import stat
from pathlib import Path

from pipeline.errors import PipelineError
from tasks.digests import digest_file, digest_json

MANIFEST = "manifest.json"
# Manifests of format 1 had no seal.
FORMAT = 2
SEAL = re.compile(rb',\n "seal": "([0-9a-f]{64})"\n\}\n\Z')


def seal(manifest: dict) -> bytes:
    """The bytes of `manifest.json`. Its last entry is the SHA-256 of all bytes before it, so that any damage shows."""
    body = json.dumps({"format": FORMAT, **manifest}, indent=1).removesuffix("\n}").encode()
    return body + f',\n "seal": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def read_manifest(folder: Path) -> dict | None:
    """The manifest in `folder`; None where there is none, or a damaged one."""
    manifest, is_sound = parse_manifest(folder)
    return manifest if is_sound else None


def parse_manifest(folder: Path) -> tuple[dict | None, bool]:
    """The manifest in `folder` (None where no text can be made out), and whether it is as it was written."""
    try:
        content = _read_plain(folder / MANIFEST)
        manifest = json.loads(content)
    except (OSError, ValueError, RecursionError):
        return None, False
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        return None, False
    if "seal" not in manifest and "format" not in manifest:
        return manifest, True  # of format 1
    sealed = SEAL.search(content)
    return manifest, bool(sealed) and hashlib.sha256(content[: sealed.start()]).hexdigest() == sealed[1].decode()


def _read_plain(path: Path) -> bytes:
    """The content of a file. Raises OSError for a link, a device and the like, without waiting for it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path}: no file")
        return file.read()


def describe_files(folder: Path) -> dict[str, dict]:
    """Size and SHA-256 of each file below `folder`, by its relative path; the manifest excepted.

    Raises PipelineError for what is neither a file nor a folder.
    """
    described = {}
    for place, folders, names in os.walk(folder):
        for name in [*names, *(name for name in folders if os.path.islink(os.path.join(place, name)))]:
            path = Path(place, name)
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise PipelineError(f"{path}: neither a file nor a folder; an artefact holds nothing else")
            described[path.relative_to(folder).as_posix()] = {"size": status.st_size, "sha256": digest_file(path)}
    described.pop(MANIFEST, None)
    return dict(sorted(described.items()))


def digest_files(files: dict[str, dict]) -> str:
    """The artefact's digest: over its sorted (path, size, SHA-256)."""
    return digest_json(sorted([name, file["size"], file["sha256"]] for name, file in files.items()))
