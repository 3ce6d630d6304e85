"""`diff`: why two artefacts of one stage have different keys, down to the setting, file or version that is the cause."""

from collections.abc import Iterator

from pipeline.errors import PipelineError
from tasks.cache_cli.recipe import OF_A_RUN, own_settings, stage_class
from tasks.cache_cli.text import say
from tasks.engine.catalogue import Catalogue, Entry, name_of
from tasks.engine.digests import canonical_json

NONE = "none"


def diff(catalogue: Catalogue, one: Entry, other: Entry) -> int:
    """Prints the causes, indented by the inputs that lead to them. Raises PipelineError for artefacts of two stages."""
    if one.stage != other.stage:
        raise PipelineError(f"{one.name} and {other.name} are of different stages; only keys of one stage can be compared")
    if one is other:
        say(f"{one.name}: one and the same artefact")
        return 0
    say(f"{one.name} and {other.name} differ in")
    for line in causes(catalogue, one, other, set()):
        say(f"  {line}")
    return 0


def causes(catalogue: Catalogue, one: Entry, other: Entry, told: set) -> Iterator[str]:
    """The differences of two artefacts of one stage, as lines; those of pairs in `told` are not told again."""
    told.add((one.name, other.name))
    found = False
    for what in ("version", "parameters", "outside"):
        for line in differences(what, one.manifest[what], other.manifest[what]):
            found = True
            yield line
    pairs = {name: (one.sources.get(name), other.sources.get(name)) for name in sorted(one.sources.keys() | other.sources.keys())}
    for line in leading_settings(one, other, pairs):
        yield f"({line})"
    for name, (first, second) in pairs.items():
        if not (first and second and first["key"] == second["key"]):
            found = True
            yield f"input {name}: {name_of(first) if first else NONE} | {name_of(second) if second else NONE}"
            yield from (f"  {line}" for line in input_causes(catalogue, first, second, told))
    if not found:
        yield "the records of their images, which no manifest holds: the shards are of different images"


def input_causes(catalogue: Catalogue, first: dict | None, second: dict | None, told: set) -> Iterator[str]:
    if not of_one_stage(first, second):
        return
    one, other = catalogue.get(first), catalogue.get(second)
    if not one or not other:
        gone = [name_of(made) for made, found in ((first, one), (second, other)) if not found]
        yield f"{' and '.join(gone)} no longer in the cache, so that the cause cannot be told"
    elif (one.name, other.name) in told:
        yield "as told above"
    else:
        yield from causes(catalogue, one, other, told)


def of_one_stage(first: dict | None, second: dict | None) -> bool:
    return first is not None and second is not None and first["stage"] == second["stage"]


def leading_settings(one: Entry, other: Entry, pairs: dict[str, tuple]) -> Iterator[str]:
    """Settings that are not in the keys themselves, but lead to what is: to files outside, or to an input of another stage."""
    names = set()
    if one.manifest["outside"] != other.manifest["outside"] and stage_class(one.stage):
        names |= set(stage_class(one.stage).resolved)
    if not all(of_one_stage(*pair) for pair in pairs.values()):
        names |= one.manifest["settings"].keys() - set(own_settings(one)) - set(OF_A_RUN)
    settings = ({name: text for name, text in entry.manifest["settings"].items() if name in names} for entry in (one, other))
    return differences("setting", *settings)


def differences(what: str, one, other) -> Iterator[str]:
    """A line for each value in which two JSON values differ, both values in it."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            if shown(one, name) != shown(other, name):
                yield f"{'' if what == 'parameters' else what + ' '}{name}: {shown(one, name)} | {shown(other, name)}"
    elif one != other:
        yield f"{what}: {one} | {other}"


def shown(values: dict, name: str) -> str:
    return canonical_json(values[name]) if name in values else NONE
