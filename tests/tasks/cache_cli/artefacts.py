"""What tests of `rcnn-cache` share: artefacts of trivial stages, and ways to damage them."""

import json
from pathlib import Path

import luigi

from tasks.engine.catalogue import Catalogue, Entry
from tasks.engine.manifest import describe_files, digest_files, seal

HERE = Path(__file__).resolve().parents[1]
REPOSITORY = HERE.parents[1]
CACHE = Path("cache")
OUTSIDE = "what lies outside the cache"


def forget() -> None:
    luigi.task_register.Register.clear_instance_cache()


def powers_of(entry: Entry) -> Entry:
    catalogue = Catalogue(CACHE)
    return catalogue.get(entry.manifest["inputs"]["powers"])


def rename(name: str, digits: str) -> None:
    """Gives the artefact `name` a key that begins with `digits`."""
    folder = CACHE / name
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"key": digits + manifest["key"][12:]}))
    folder.rename(folder.parent / digits)


def flip(path: Path, place: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def insert_space(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n ", b"\n  ", 1))


def make_consistent(folder: Path, name: str | None = None, content: bytes = b"") -> None:
    """Adds a space to a file of the artefact, or writes `content`, and makes its manifest right."""
    path = folder / (name or "index.json")
    path.write_bytes(content or path.read_bytes() + b" ")
    manifest, files = json.loads((folder / "manifest.json").read_text()), describe_files(folder)
    del manifest["seal"]
    (folder / "manifest.json").write_bytes(seal(manifest | {"files": files, "digest": digest_files(files)}))


def edit(folder: Path, **changes) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
