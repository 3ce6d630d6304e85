"""`push` and `pull`: artefacts between this cache and a remote one."""

import argparse
from collections.abc import Collection, Iterable

from tasks.cache_cli.text import say, show_size
from tasks.engine.artefacts import KEY_DIGITS, Artefact
from tasks.engine.catalogue import LATEST, Catalogue, Entry
from tasks.engine.errors import UserError
from tasks.engine.remote import Remote
from tasks.engine.task import all_stages

# Words for several stages, in --only and --without: names of stages, or the beginnings of names.
GROUPS = {
    "data": ("Generate", "Download", "Index"), "proposals": ("RegionProposals", "RPNProposals"),
    "features": ("ExtractFeatures", "SpatialPyramidFeatures"), "maps": ("ConvFeatures", "SharedConvFeatures"),
    "models": ("Train", "FineTune", "Pretrain", "LoadWeights", "Compress", "Export"),
    "report": ("FullPipeline", "Summarise", "Evaluate"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--remote", required=True, metavar="URL", help="a folder, or an address such as s3://bucket/rcnn")
    names = f"stages, or {', '.join(GROUPS)}, separated by commas"
    parser.add_argument("--only", metavar="NAMES", default="", help=f"only these: {names}")
    parser.add_argument("--without", metavar="NAMES", default="", help=f"all but these: {names}")


def push(catalogue: Catalogue, options: argparse.Namespace) -> int:
    """Puts artefacts, and what they were made from, into the remote cache: what others were made from first."""
    if not options.KEY and not catalogue.latest:
        raise UserError(f"{catalogue.cache}: there are no {LATEST} results; name the artefacts to push")
    wanted = [catalogue.find(key) for key in options.KEY or [LATEST]]
    remote, chosen = Remote(options.remote), Choice(options)
    entries = [entry for entry in in_order(catalogue, wanted) if chosen.has(entry.stage)]
    pushed = [entry for entry in entries if _push(remote, catalogue, entry)]
    there = len(entries) - len(pushed)
    say(f"{len(pushed)} artefacts pushed, {show_size(sum(entry.size for entry in pushed))}; {there} were there already")
    return 0


def _push(remote: Remote, catalogue: Catalogue, entry: Entry) -> bool:
    is_new = remote.push(Artefact(catalogue.cache, entry.stage, entry.key))
    if is_new:
        say(f"pushed {entry.name} ({show_size(entry.size)})")
    return is_new


def in_order(catalogue: Catalogue, wanted: Iterable[Entry]) -> list[Entry]:
    """`wanted` and all that they were made from, each after its inputs: a push that is cut short leaves nothing unusable."""
    ordered: dict[str, Entry] = {}

    def visit(entry: Entry) -> None:
        if entry.name not in ordered:
            for source in filter(None, map(catalogue.get, entry.manifest["inputs"].values())):
                visit(source)
            ordered[entry.name] = entry

    for entry in wanted:
        visit(entry)
    return list(ordered.values())


def pull(catalogue: Catalogue, options: argparse.Namespace) -> int:
    """Brings artefacts, and what they were made from, into the cache. What the remote cache lacks is counted."""
    remote, chosen = Remote(options.remote), Choice(options)
    to_visit = [find(remote, name) for name in options.KEY]
    seen, pulled, size, absent = set(to_visit), 0, 0, 0
    while to_visit:
        stage, key = to_visit.pop()
        if (answer := remote.manifest(stage, key)) is None:
            absent += chosen.has(stage)
            continue
        manifest, _ = answer
        artefact = Artefact(catalogue.cache, stage, key)
        if chosen.has(stage) and not artefact.exists():
            remote.pull(artefact)
            of_artefact = sum(file["size"] for file in manifest["files"].values())
            pulled, size = pulled + 1, size + of_artefact
            say(f"pulled {artefact} ({show_size(of_artefact)})")
        sources = {(source["stage"], source["key"]) for source in manifest["inputs"].values()} - seen
        seen |= sources
        to_visit += sorted(sources)
    say(f"{pulled} artefacts pulled, {show_size(size)}" + (f"; {absent} are not in the remote cache" if absent else ""))
    return 0


def find(remote: Remote, name: str) -> tuple[str, str]:
    """Stage and key of the artefact `name`, STAGE/KEY with the first digits of its key. Raises UserError unless there is one."""
    stage, _, start = name.rstrip("/").partition("/")
    keys = [key for key in remote.keys(stage) if key.startswith(start)] if stage in _stages() else []
    if len(keys) != 1:
        shown = ", ".join(key[:KEY_DIGITS] for key in keys) or "none"
        raise UserError(f"{remote.url}: found {shown} for {name!r}, expected one artefact; give STAGE/KEY")
    return stage, keys[0]


class Choice:
    """The stages that `--only` and `--without` leave. Raises UserError for an unknown name."""

    def __init__(self, options: argparse.Namespace):
        self.only, self.without = _names("--only", options.only), _names("--without", options.without)

    def has(self, stage: str) -> bool:
        return (not self.only or _is_among(stage, self.only)) and not _is_among(stage, self.without)


def _names(option: str, text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := set(names) - set(GROUPS) - _stages():
        raise UserError(f"{option} {', '.join(sorted(unknown))}: expected stages, or {', '.join(GROUPS)}")
    return names


def _is_among(stage: str, names: Collection[str]) -> bool:
    return any(stage == name or (name in GROUPS and stage.startswith(GROUPS[name])) for name in names)


def _stages() -> set[str]:
    return {stage.stage for stage in all_stages()}
