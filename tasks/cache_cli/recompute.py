"""`verify --recompute`: makes artefacts anew from their recorded inputs, and compares their digests with those in the cache.

A key says what an artefact was made from, and nothing about its bytes. Whoever can write into a cache, or into the remote cache
that it was filled from, could have put other bytes there, with a manifest that fits them. This finds it.
"""

import random
import tempfile
from pathlib import Path

from pipeline.errors import PipelineError
from tasks.cache_cli.recipe import OF_A_RUN, outdated, stage_class
from tasks.cache_cli.text import say
from tasks.engine.artefacts import Artefact
from tasks.engine.catalogue import Catalogue, Entry
from tasks.engine.errors import UserError
from tasks.engine.manifest import digest_files, read_manifest
from tasks.engine.package_versions import package_versions
from tasks.engine.task import CachedTask


def recompute(catalogue: Catalogue, number: int) -> int:
    """Makes `number` artefacts anew, drawn at random; prints what came out, and returns 1 if one has other bytes."""
    entries = [entry for entry in catalogue.entries.values() if entry.is_sound]
    counts = dict.fromkeys(("same", "other", "not made"), 0)
    for entry in random.sample(entries, min(number, len(entries))):
        say(f"{entry.name}: made anew; it took {entry.manifest['seconds']:.1f} s")
        kind, details = _compare(catalogue, entry)
        counts[kind] += 1
        say(f"{entry.name}: {details}")
    say(f"{counts['same']} artefacts made anew with the same bytes, {counts['other']} with others; {counts['not made']} not made")
    return int(counts["other"] > 0)


def _compare(catalogue: Catalogue, entry: Entry) -> tuple[str, str]:
    """What came out for one artefact: `same`, `other` or `not made`, and the details."""
    with tempfile.TemporaryDirectory(prefix="recompute-") as folder:
        try:
            _make(_task_of(catalogue, entry), artefact := Artefact(Path(folder), entry.stage, entry.key))
        except (UserError, PipelineError) as error:
            return "not made", f"not made: {error}"
        rebuilt = read_manifest(artefact.folder)
        assert rebuilt is not None
        before, now = entry.manifest["files"], rebuilt["files"]
        if digest_files(before) == rebuilt["digest"]:
            return "same", "the same bytes"
        names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        return "other", f"changed: made anew, it has other bytes in {', '.join(names)}{_circumstances(entry, rebuilt)}"


def _make(task: CachedTask, artefact: Artefact) -> None:
    """Makes the artefact of `task` as `artefact`, in another cache. Its inputs are those in its own."""
    task.artefact = artefact
    try:
        task.make_artefact()
    finally:
        del task.artefact  # Luigi keeps the task, and gives it to those that require it


def _task_of(catalogue: Catalogue, entry: Entry) -> CachedTask:
    """The task that makes the artefact. Raises UserError if its key is another today, or if an input is missing."""
    cls = stage_class(entry.stage)
    if cls is None:
        raise UserError(f"this version of the code has no stage {entry.stage}")
    known = set(cls.get_param_names(include_significant=True)) - set(OF_A_RUN)
    settings = {name: text for name, text in entry.manifest["settings"].items() if name in known}
    own = {"cache_dir": str(catalogue.cache), "threads": str(entry.manifest.get("threads", 0))}  # bytes depend on the threads
    task = cls.from_str_params(settings | own)
    if missing := [str(part.artefact) for part in task.requires().values() if not part.artefact.exists()]:
        raise UserError(f"{', '.join(missing)} is not in the cache")
    if task.key != entry.key:
        reasons = outdated(catalogue, entry) or ["the files outside the cache that it was made from, or this machine, are others"]
        raise UserError(f"it has another key today ({'; '.join(reasons)})")
    return task


def _circumstances(entry: Entry, rebuilt: dict) -> str:
    """Differences of machine and packages, which may explain other bytes."""
    before = {"platform": entry.manifest.get("platform"), **entry.manifest["packages"]}
    now = {"platform": rebuilt["platform"], **package_versions(before)}
    differ = [f"{name} {before[name]}, now {now[name]}" for name in before if name in now and before[name] != now[name]]
    return f"; it was made with other versions: {'; '.join(differ)}" if differ else ""
