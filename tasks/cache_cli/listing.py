"""`ls` and `du`: what is in the cache, which results need it, and how large it is."""

import shutil
import sys
import time

from tasks.cache_cli.recipe import changed_settings, own_settings
from tasks.cache_cli.text import cut, say, show_age, show_size
from tasks.engine.artefacts import KEY_DIGITS
from tasks.engine.catalogue import LATEST, Catalogue, Entry

# The stages whose artefacts are results: what a user asked for.
RESULTS = (
    "FullPipeline", "Summarise", "Evaluate", "FindThresholds", "ProposalQuality", "ExportProposals", "ExportDetector",
    "DetectImages",
)
FEWEST_DIGITS = 4
MOST_USERS = 2  # how many users a line names


def list_artefacts(catalogue: Catalogue) -> int:
    """Prints one line per artefact. A sharded stage has one line for all its shards. On a terminal, lines are cut to its width.

    In each line the settings that distinguish the artefact come first. Settings of other stages that all artefacts share are only
    in the last line.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    users, common = used_by(catalogue), common_settings(catalogue)
    hidden = {shard.name for entry in catalogue.entries.values() for shard in catalogue.shards(entry).values()}
    say(f"{'stage':<22}  {'key':<{KEY_DIGITS}}  {'age':>6}  {'size':>8}  {'own files':>9}  {'used by':<14}  other than default")
    for entry in catalogue.entries.values():
        if entry.name in hidden:
            continue
        age = show_age(time.time() - entry.started)
        own_size = show_size(entry.size) if entry.is_sharded else ""
        names = users.get(entry.name, ["-"])
        used = " ".join(names[:MOST_USERS]) + (f" +{len(names) - MOST_USERS}" if len(names) > MOST_USERS else "")
        own, changed = own_settings(entry), changed_settings(entry)
        distinguishing = sorted((name for name in changed if name in own or name not in common), key=common.__contains__)
        settings = " ".join(f"{name}={changed[name]}" for name in distinguishing)
        size = show_size(catalogue.whole_size(entry))
        line = f"{entry.stage:<22}  {entry.folder.name:<{KEY_DIGITS}}  {age:>6}  {size:>8}  {own_size:>9}  {used:<14}  {settings}"
        say(cut(line, width))
    for folder in catalogue.broken:
        say(f"{folder.parent.name:<22}  {folder.name:<{KEY_DIGITS}}  no readable manifest; see `rcnn-cache verify`")
    if common:
        say(cut(f"all of them: {' '.join(f'{name}={text}' for name, text in common.items())}", width))
    return 0


def common_settings(catalogue: Catalogue) -> dict[str, str]:
    """Settings with the same value, which is not the default, in every artefact that has them."""
    changed: dict[str, str] = {}
    for entry in catalogue.entries.values():
        changed |= changed_settings(entry)
    values = {name: [entry.manifest["settings"].get(name, text) for entry in catalogue.entries.values()]
              for name, text in changed.items()}
    return {name: text for name, text in sorted(changed.items()) if set(values[name]) == {text}}


def used_by(catalogue: Catalogue) -> dict[str, list[str]]:
    """For each artefact, by name, the results made from it, newest first: `latest`, or the first digits of their keys.

    A result that belongs to another is not listed separately.
    """
    results = [entry for entry in catalogue.entries.values() if entry.stage in RESULTS or entry is catalogue.latest]
    needs = {entry.name: catalogue.closure([entry]) for entry in results}
    ends = [entry for entry in results if not any(entry.name in needs[user.name] for user in results if user is not entry)]
    users: dict[str, list[str]] = {}
    for entry in sorted(ends, key=lambda entry: (entry is not catalogue.latest, -entry.started)):
        label = LATEST if entry is catalogue.latest else first_digits(catalogue, entry)
        for name in needs[entry.name]:
            users.setdefault(name, []).append(label)
    return users


def first_digits(catalogue: Catalogue, entry: Entry) -> str:
    """As many first digits of the key as distinguish it from all other keys."""
    keys = [artefact.key for artefact in catalogue.entries.values()]
    for count in range(FEWEST_DIGITS, KEY_DIGITS):
        if sum(key.startswith(entry.key[:count]) for key in keys) == 1:
            return entry.key[:count]
    return entry.folder.name


def list_sizes(catalogue: Catalogue) -> int:
    """Prints the bytes on disk per stage, largest first: all bytes, and those that the latest results need."""
    stages: dict[str, list[Entry]] = {}
    for entry in catalogue.entries.values():
        stages.setdefault(entry.stage, []).append(entry)
    rows = [(stage, len(entries), sum(entry.size for entry in entries),
             sum(entry.size for entry in entries if entry.name in catalogue.needed)) for stage, entries in stages.items()]
    total = ("total", *(sum(row[column] for row in rows) for column in (1, 2, 3)))
    say(f"{'stage':<22}  {'artefacts':>9}  {'size':>10}  {'for latest':>10}")
    for stage, count, size, needed in [*sorted(rows, key=lambda row: -row[2]), total]:
        say(f"{stage:<22}  {count:>9}  {show_size(size):>10}  {show_size(needed):>10}")
    return 0
