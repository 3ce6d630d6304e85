"""Finds what is wrong with a cache: compares every file with its digest, and looks for everything that should not be there."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from .artefacts import ASIDE, MEMORY
from .catalogue import LATEST, Catalogue, Entry, contents, has_key_for_name, is_folder, is_plain, name_of
from .digests import digest_file, digest_json
from .manifest import MANIFEST, digest_files
from .readable import CHECKS, why_unreadable
from .workshop import LOCKS, WORK

OTHERS = ("README.md",)  # files that may lie next to the stages


def all_faults(catalogue: Catalogue, checks: Mapping[str, Callable[[Path], None]] = CHECKS) -> Iterator[str]:
    """Every fault as `path: kind: details`. `checks` find files that cannot be read; see `why_unreadable`."""
    cache = catalogue.cache
    if not catalogue.latest and os.path.lexists(cache / LATEST):
        yield link_fault(cache / LATEST, cache) if (cache / LATEST).is_symlink() else f"{cache / LATEST}: foreign: not a link"
    # Names with a dot at the beginning are the engine's: locks, unfinished work, remembered digests.
    for path in sorted(path for path in cache.iterdir() if path.name not in (LATEST, *OTHERS) and not path.name.startswith(".")):
        if is_folder(path):
            yield from (stray_fault(inner, cache) for inner in sorted(path.iterdir()) if not is_folder(inner))
        else:
            yield stray_fault(path, cache)
    yield from hidden_faults(cache)
    for folder in catalogue.broken:
        kind = f"damaged: no readable {MANIFEST} of this key" if has_key_for_name(folder) else "foreign folder: not an artefact"
        yield f"{folder}: {kind}"
        if (folder / MANIFEST).is_symlink():
            yield link_fault(folder / MANIFEST, cache)
    for entry in catalogue.entries.values():
        yield from artefact_faults(catalogue, entry, checks)


def hidden_faults(cache: Path) -> Iterator[str]:
    """Links among locks, unfinished work, damaged artefacts and remembered digests: writing through them would go elsewhere."""
    for place in (cache / MEMORY, *(cache / name for name in (LOCKS, WORK, ASIDE))):
        if place.is_symlink():
            yield link_fault(place, cache)
        else:
            yield from (link_fault(path, cache) for path in contents(place).values() if path.is_symlink())


def artefact_faults(catalogue: Catalogue, entry: Entry, checks: Mapping) -> Iterator[str]:
    folder, recorded = entry.folder, entry.manifest["files"]
    yield from manifest_faults(catalogue, entry)
    paths = contents(folder)
    for name in sorted(recorded):
        if leads_out(name):
            yield f"{folder / MANIFEST}: path out of the artefact: names the file {name!r}"
        elif name not in paths:
            yield f"{folder / name}: missing: listed in its {MANIFEST}"
        elif is_plain(paths[name]):
            yield from content_faults(paths[name], recorded[name], checks)
    yield from foreign_faults(folder, set(recorded), catalogue.cache)


def manifest_faults(catalogue: Catalogue, entry: Entry) -> Iterator[str]:
    """Contradictions within the manifest, and missing shards."""
    manifest, path = entry.manifest, entry.folder / MANIFEST
    if not entry.is_sound:
        yield f"{path}: changed: its bytes differ from those that were written"
    if manifest["digest"] != digest_files(manifest["files"]):
        yield f"{path}: changed: its digest does not match the files that it lists"
    required = {name: source["key"] for name, source in entry.sources.items()}
    inputs = {name: manifest[name] for name in ("stage", "version", "parameters", "outside")} | {"requires": required}
    # The key of a shard also covers the records of its images, which its manifest does not contain.
    if not entry.is_shard and manifest["key"] != digest_json(inputs):
        yield f"{path}: changed: its key does not match the settings and inputs that it lists"
    for digest, users in catalogue.recorded_digests.get(entry.name, {}).items():
        if digest != manifest["digest"]:
            more = f", and {len(users) - 1} more" if users[1:] else ""
            recorded = f"{users[0]} recorded {digest[:12]}{more}"
            yield f"{entry.folder}: changed: its digest is {manifest['digest'][:12]}, {recorded}"
    for name, source in manifest["inputs"].items():
        if name not in entry.sources and not catalogue.get(source):
            yield f"{entry.folder}: missing: its {name}, {name_of(source)}"


def content_faults(path: Path, recorded: dict, checks: Mapping) -> Iterator[str]:
    try:
        size = path.stat().st_size
        if size != recorded["size"]:
            yield f"{path}: {'truncated' if size < recorded['size'] else 'changed'}: {size} bytes, expected {recorded['size']}"
        elif digest_file(path) != recorded["sha256"]:
            yield f"{path}: changed: content differs from the recorded SHA-256"
        elif reason := why_unreadable(path, checks):
            yield f"{path}: unreadable: {reason}"
    except OSError as error:
        yield f"{path}: unreadable: {error.strerror}"


def foreign_faults(folder: Path, recorded: set[str], cache: Path) -> Iterator[str]:
    """Everything below `folder` that its manifest does not list; a foreign folder once, without its content."""
    parents = {str(parent) for name in recorded for parent in PurePosixPath(name).parents}

    def visit(place: Path) -> Iterator[str]:
        for path in sorted(place.iterdir()):
            name = path.relative_to(folder).as_posix()
            if is_folder(path):
                yield from visit(path) if name in parents else [f"{path}: foreign folder: not in its {MANIFEST}"]
            elif name not in {*recorded, MANIFEST} or not is_plain(path):
                yield stray_fault(path, cache)

    yield from visit(folder)


def stray_fault(path: Path, cache: Path) -> str:
    """The fault of something that should not be there and is not a folder."""
    if path.is_symlink():
        return link_fault(path, cache)
    return f"{path}: foreign file: no stage wrote it" if path.is_file() else f"{path}: neither a file nor a folder"


def link_fault(path: Path, cache: Path) -> str:
    """The fault of a link, judged by its text. Of its target, only the existence is checked."""
    base, text = cache.resolve(), os.readlink(path)
    target = Path(os.path.normpath(base / path.relative_to(cache).parent / text))
    if not os.path.lexists(target):
        return f"{path}: dangling link: to {text}"
    kind = "link" if target.is_relative_to(base) else "link out of the cache"
    return f"{path}: {kind}: to {text}; only `{LATEST}` may be a link, to an artefact"


def leads_out(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or not path.parts
