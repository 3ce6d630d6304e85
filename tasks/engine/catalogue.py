"""All artefacts of a cache, read from their manifests: which was made from which, and which one a user means.

A manifest is not trusted: what it names is looked up among the folders of the cache, and never used as a path.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .artefacts import KEY_DIGITS, WHOLE
from .errors import UserError
from .manifest import FIELDS, MANIFEST, parse_manifest

LATEST = "latest"
CANDIDATES = 20  # most artefacts that an error lists
SHARD = "shard "  # the inputs of a whole stage whose names begin so are its shards


@dataclass(frozen=True, eq=False)
class Entry:
    """An artefact in the cache whose manifest can be read."""

    folder: Path
    manifest: dict
    is_sound: bool  # whether the manifest is as it was written

    @property
    def stage(self) -> str:
        return self.manifest["stage"]

    @property
    def key(self) -> str:
        return self.manifest["key"]

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.folder.name}"

    @property
    def started(self) -> float:
        """Seconds since the epoch."""
        return self.manifest["started"]

    @property
    def is_shard(self) -> bool:
        return self.manifest["settings"].get("shard", str(WHOLE)) != str(WHOLE)

    @property
    def is_sharded(self) -> bool:
        return any(name.startswith(SHARD) for name in self.manifest["inputs"])

    @property
    def sources(self) -> dict[str, dict]:
        """The inputs that are part of the key: all except the shards."""
        return {name: source for name, source in self.manifest["inputs"].items() if not name.startswith(SHARD)}

    @cached_property
    def size(self) -> int:
        """Bytes on disk, without shards."""
        return size_of(self.folder)


class Catalogue:
    """The artefacts of a cache by name, `STAGE/KEY`. `broken`: folders in the places of artefacts without a readable manifest."""

    def __init__(self, cache: Path):
        self.cache = cache
        self.entries: dict[str, Entry] = {}
        self.broken: list[Path] = []
        for folder in artefact_folders(cache):
            manifest, is_sound = parse_manifest(folder)
            if manifest and is_of_folder(manifest, folder):
                self.entries[f"{folder.parent.name}/{folder.name}"] = Entry(folder, manifest, is_sound)
            else:
                self.broken.append(folder)

    @cached_property
    def latest(self) -> Entry | None:
        """The results of the last run."""
        link = self.cache / LATEST
        return self.entries.get(os.readlink(link)) if link.is_symlink() else None

    @cached_property
    def needed(self) -> set[str]:
        """The names of the latest results and of all artefacts behind them."""
        return self.closure([self.latest] if self.latest else [])

    def get(self, source: dict) -> Entry | None:
        """The artefact that a manifest names as an input, by stage and key; None if the cache does not have it."""
        entry = self.entries.get(name_of(source))
        return entry if entry and entry.key == source["key"] else None

    @cached_property
    def recorded_digests(self) -> dict[str, dict[str, list[str]]]:
        """For each artefact, by name: the digests that its users recorded for it, each with the names of these users."""
        recorded: dict[str, dict[str, list[str]]] = {}
        for user in self.entries.values():
            for source in user.manifest["inputs"].values():
                recorded.setdefault(name_of(source), {}).setdefault(source["digest"], []).append(user.name)
        return recorded

    def shards(self, entry: Entry) -> dict[str, Entry]:
        """Those shards of a whole stage that are in the cache, by name: `shard 0` and so on."""
        shards = {name: self.get(source) for name, source in entry.manifest["inputs"].items() if name.startswith(SHARD)}
        return {name: shard for name, shard in shards.items() if shard}

    def whole_size(self, entry: Entry) -> int:
        """Bytes on disk, with shards."""
        return entry.size + sum(shard.size for shard in self.shards(entry).values())

    def closure(self, entries: Iterable[Entry]) -> set[str]:
        """The names of `entries` and of all artefacts in the cache that they were made from, directly or not."""
        names, to_visit = set(), list(entries)
        while to_visit:
            entry = to_visit.pop()
            if entry.name not in names:
                names.add(entry.name)
                to_visit += filter(None, map(self.get, entry.manifest["inputs"].values()))
        return names

    def find(self, wanted: str) -> Entry:
        """The artefact that a user means by `wanted`. Raises UserError if there is none, or several, which it lists."""
        if wanted == LATEST and self.latest:
            return self.latest
        *_, stage, start = ["", "", *wanted.rstrip("/").split("/")]  # a path, as the shell completes it, ends in STAGE/KEY
        of_stage = [entry for entry in self.entries.values() if entry.stage == start and not entry.is_shard]
        if of_stage:
            return max([entry for entry in of_stage if entry.name in self.needed] or of_stage, key=lambda entry: entry.started)
        matches = [entry for entry in self.entries.values() if start and entry.key.startswith(start.lower())
                   and ("/" not in wanted or entry.stage == stage)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = [entry.name for entry in matches[:CANDIDATES]] + ["..."] * (len(matches) > CANDIDATES)
            raise UserError(f"{wanted!r} is the beginning of {len(matches)} keys; give more digits or the stage:", *listed)
        raise UserError(f"{self.cache}: no artefact {wanted!r}; `rcnn-cache ls` lists them")


def name_of(source: dict) -> str:
    """The name of an input in a manifest: `STAGE/KEY`."""
    return f"{source['stage']}/{source['key'][:KEY_DIGITS]}"


def artefact_folders(cache: Path) -> Iterator[Path]:
    """Every folder that is, or should be, an artefact. Links are not followed."""
    for stage in sorted(path for path in cache.iterdir() if is_folder(path) and not path.name.startswith(".")):
        yield from sorted(path for path in stage.iterdir() if is_folder(path))


def is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def has_key_for_name(folder: Path) -> bool:
    """Whether the folder has a name as artefacts have; nobody else gives such names."""
    return re.fullmatch(f"[0-9a-f]{{{KEY_DIGITS}}}", folder.name) is not None


def is_of_folder(manifest: dict, folder: Path) -> bool:
    """Whether `manifest` is complete and belongs to the artefact in `folder`."""
    if not FIELDS.keys() <= manifest.keys() or not re.fullmatch("[0-9a-f]{64}", manifest["key"]):
        return False
    return (manifest["stage"], manifest["key"][:KEY_DIGITS]) == (folder.parent.name, folder.name)


def contents(folder: Path) -> dict[str, Path]:
    """Files and links below `folder`, by relative path, without the manifest. Links are not followed."""
    paths: dict[str, Path] = {}
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        inside = [Path(place, name) for name in names + links]
        paths |= {path.relative_to(folder).as_posix(): path for path in inside}
    paths.pop(MANIFEST, None)
    return dict(sorted(paths.items()))


def is_plain(path: Path) -> bool:
    """Whether `path` is a file and not a link."""
    return path.is_file() and not path.is_symlink()


def size_of(folder: Path) -> int:
    """Bytes of everything below `folder`; links are not followed."""
    return sum(os.lstat(Path(place, name)).st_size for place, _, names in os.walk(folder) for name in names)
