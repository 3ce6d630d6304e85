"""`diff`: why two artefacts of one stage have different keys. It names the setting, file or version that is the cause."""

from collections.abc import Iterator

from pipeline.errors import PipelineError
from tasks.cache_cli.recipe import OF_A_RUN, own_settings, stage_class
from tasks.cache_cli.text import say
from tasks.engine.catalogue import Catalogue, Entry, name_of
from tasks.engine.digests import canonical_json

NONE = "none"


def diff(catalogue: Catalogue, first: Entry, second: Entry) -> int:
    """Prints the causes, those within an input below that input. Raises PipelineError for artefacts of different stages."""
    if first.stage != second.stage:
        raise PipelineError(f"{first.name} and {second.name} are of different stages; only keys of one stage can be compared")
    if first is second:
        say(f"{first.name}: both names mean this artefact")
        return 0
    say(f"{first.name} and {second.name} differ in")
    for line in causes(catalogue, first, second, set()):
        say(f"  {line}")
    return 0


def causes(catalogue: Catalogue, first: Entry, second: Entry, explained: set) -> Iterator[str]:
    """The differences of two artefacts of one stage, as lines. Pairs in `explained` are not explained again."""
    explained.add((first.name, second.name))
    differs = False
    for field in ("version", "parameters", "outside"):
        for line in differences(field, first.manifest[field], second.manifest[field]):
            differs = True
            yield line
    names = sorted(first.sources.keys() | second.sources.keys())
    pairs = {name: (first.sources.get(name), second.sources.get(name)) for name in names}
    for line in indirect_settings(first, second, pairs):
        yield f"({line})"
    for name, (source, counterpart) in pairs.items():
        if not (source and counterpart and source["key"] == counterpart["key"]):
            differs = True
            yield f"input {name}: {name_of(source) if source else NONE} | {name_of(counterpart) if counterpart else NONE}"
            yield from (f"  {line}" for line in input_causes(catalogue, source, counterpart, explained))
    if not differs:
        yield "the records of their images, which manifests do not contain: these are shards of different images"


def input_causes(catalogue: Catalogue, source: dict | None, counterpart: dict | None, explained: set) -> Iterator[str]:
    """The differences of two inputs of the same name, `source` of the first artefact and `counterpart` of the second."""
    if not of_one_stage(source, counterpart):
        return
    first, second = catalogue.get(source), catalogue.get(counterpart)
    if not first or not second:
        missing = [name_of(gone) for gone, entry in ((source, first), (counterpart, second)) if not entry]
        yield f"the cause is unknown: no longer in the cache: {' and '.join(missing)}"
    elif (first.name, second.name) in explained:
        yield "see above"
    else:
        yield from causes(catalogue, first, second, explained)


def of_one_stage(source: dict | None, counterpart: dict | None) -> bool:
    return source is not None and counterpart is not None and source["stage"] == counterpart["stage"]


def indirect_settings(first: Entry, second: Entry, pairs: dict[str, tuple]) -> Iterator[str]:
    """Settings that are in no key themselves, but choose files outside the cache or the stage of an input."""
    names = set()
    if first.manifest["outside"] != second.manifest["outside"] and stage_class(first.stage):
        names |= set(stage_class(first.stage).resolved)
    if not all(of_one_stage(*pair) for pair in pairs.values()):
        names |= first.manifest["settings"].keys() - set(own_settings(first)) - set(OF_A_RUN)
    settings = ({name: text for name, text in entry.manifest["settings"].items() if name in names} for entry in (first, second))
    return differences("setting", *settings)


def differences(what: str, first, second) -> Iterator[str]:
    """A line for each difference between two JSON values, with both values."""
    if isinstance(first, dict) and isinstance(second, dict):
        for name in sorted(first.keys() | second.keys()):
            if shown(first, name) != shown(second, name):
                yield f"{'' if what == 'parameters' else what + ' '}{name}: {shown(first, name)} | {shown(second, name)}"
    elif first != second:
        yield f"{what}: {first} | {second}"


def shown(values: dict, name: str) -> str:
    return canonical_json(values[name]) if name in values else NONE
