"""`prune`: removes everything that the latest results were not made from."""

import shutil
import sys
from pathlib import Path

from pipeline.text import printable
from tasks.cache_cli.text import say, show_size
from tasks.engine import locks
from tasks.engine.artefacts import ASIDE, LOCKS
from tasks.engine.catalogue import LATEST, Catalogue, has_key_for_name, is_folder, name_of, size_of
from tasks.engine.cores import CORES
from tasks.engine.places import cache_folder
from tasks.engine.work_folders import WORK, artefact_of, may_be_in_use


def prune(catalogue: Catalogue, keep: list[str], dry_run: bool, yes: bool) -> int:
    """Removes artefacts that neither `latest` nor `keep` needs, unfinished work that nobody holds, and damaged artefacts.

    Raises PipelineError for an unknown key in `keep`.
    """
    cache = catalogue.cache
    if not catalogue.latest:
        message = f"{cache}: there are no {LATEST} results, so it is unknown what is needed; nothing removed"
        print(printable(message), file=sys.stderr)
        return 1
    held = [path.stem for path in (cache / LOCKS).glob("*.lock") if locks.is_held(path)]
    if running := [name for name in held if not name.startswith(CORES)]:
        message = f"{cache}: a run is building {', '.join(running)}; wait until it ends, since it may need any artefact"
        print(printable(message), file=sys.stderr)
        return 1
    needed = catalogue.closure([catalogue.latest, *map(catalogue.find, keep)])
    for name, missing in sorted(missing_inputs(catalogue, needed)):
        say(f"note: {name} was made from {missing}, which is missing or damaged; the inputs of {missing} may be removed")
    unneeded = [entry.folder for entry in catalogue.entries.values() if entry.name not in needed]
    unneeded += [folder for folder in catalogue.broken if has_key_for_name(folder)]
    for place in (cache / WORK, cache / ASIDE):
        unneeded += sorted(path for path in place.iterdir() if is_folder(path)) if is_folder(place) else []
    sizes = [size_of(folder) for folder in unneeded]
    for folder, size in zip(unneeded, sizes, strict=True):
        say(f"{'would remove' if dry_run else 'remove'} {folder} ({show_size(size)})")
    say(f"{len(unneeded)} folders, {show_size(sum(sizes))}; {len(needed)} artefacts stay")
    if dry_run or not unneeded:
        return 0
    if not yes and not is_confirmed("Remove them? [y/N] "):
        say("nothing removed")
        return 0
    for folder in unneeded:
        remove(cache, folder)
    return 0


def missing_inputs(catalogue: Catalogue, names: set[str]) -> set[tuple[str, str]]:
    """Pairs of an artefact in `names` and an input of it that is not in the cache."""
    sources = ((name, source) for name in names for source in catalogue.entries[name].manifest["inputs"].values())
    return {(name, name_of(source)) for name, source in sources if not catalogue.get(source)}


def is_confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def remove(cache: Path, folder: Path) -> None:
    """Removes an artefact or a work folder, unless a running stage holds it."""
    name = artefact_of(folder) if folder.parent.name == WORK else f"{folder.parent.name}-{folder.name}"
    with locks.held(cache_folder(cache, LOCKS) / f"{name or folder.name}.lock", wait=False) as held:
        if held and not may_be_in_use(folder):
            shutil.rmtree(folder)
        else:
            say(f"{folder}: in use, not removed")
