"""Damage to an artefact that the reader of one of its files noticed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ChangedFile
from tasks.artefacts import ADVICE, Artefact, DamagedArtefact, read_manifest
from tasks.digests import digest_file


def check_file(path: Path) -> None:
    """Raises DamagedArtefact when `path` lies in an artefact and is not the file that its manifest tells of."""
    path = Path(os.path.abspath(path))
    for folder in path.parents:
        if (manifest := read_manifest(folder)) is not None:
            name = path.relative_to(folder).as_posix()
            Artefact(folder.parents[1], folder.parent.name, manifest["key"]).path(name)
            if digest_file(path) != manifest["files"][name]["sha256"]:
                raise DamagedArtefact(f"{path}: its content differs from the SHA-256 in the manifest; {ADVICE}")
            return


@contextlib.contextmanager
def damage_told() -> Iterator[None]:
    """Makes DamagedArtefact of a ChangedFile whose file lies in an artefact: such a file is never indexed anew."""
    try:
        yield
    except ChangedFile as error:
        check_file(error.path)
        raise
