"""How an artefact is made again: its settings beside the defaults, and the command line that gives the same key."""

import shlex
from functools import cache

import luigi

from tasks.engine.catalogue import Catalogue, Entry, name_of
from tasks.engine.task import all_stages

# What a command says for itself.
OF_A_RUN = ("cache_dir", "force")


@cache
def stage_class(stage: str) -> type | None:
    """The class of a stage; None where this version of the code has none of that name."""
    return {found.stage: found for found in all_stages()}.get(stage)


def default(stage: str, name: str) -> str | None:
    """The default of a setting, as manifests write it; None for one that the stage has not."""
    parameter = dict(stage_class(stage).get_params()).get(name) if stage_class(stage) else None
    return None if parameter is None else parameter.default_text


def written(parameter: luigi.Parameter, value) -> str:
    return parameter.serialize(parameter.normalize(value))


def own_settings(entry: Entry) -> tuple[str, ...]:
    """The names of the settings that belong to the artefact's stage."""
    return stage_class(entry.stage).own_parameters if stage_class(entry.stage) else tuple(entry.manifest["parameters"])


def changed_settings(entry: Entry) -> dict[str, str]:
    """The settings that are not at their defaults, the stage's own before those of the stages that it was made from."""
    own = own_settings(entry)
    settings = {name: text for name, text in entry.manifest["settings"].items() if name not in OF_A_RUN}
    changed = {name: text for name, text in settings.items() if text != default(entry.stage, name)}
    return dict(sorted(changed.items(), key=lambda item: item[0] not in own))


def command_line(catalogue: Catalogue, entry: Entry) -> str:
    """The command that makes `entry`. It states what is not a default, or would not be where it is run."""
    words = ["luigi", "--module", "tasks", entry.stage]
    parameters = dict(stage_class(entry.stage).get_params())
    settings = {name: text for name, text in entry.manifest["settings"].items() if name in parameters and name not in OF_A_RUN}
    for name, text in {"cache_dir": str(catalogue.cache), **settings}.items():
        parameter = parameters[name]
        # Defaults of luigi.cfg and of an experiment file count as well, since Luigi would take them.
        if {text} != {default(entry.stage, name), written(parameter, parameter.task_value(entry.stage, name))}:
            option = f"--{name.replace('_', '-')}"
            words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    return shlex.join(words)


def outdated(catalogue: Catalogue, entry: Entry) -> list[str]:
    """Why today's code gives other keys: stages behind `entry` that are gone or of another version or have other settings."""
    reasons = []
    for one in (catalogue.entries[name] for name in sorted(catalogue.closure([entry]))):
        cls = stage_class(one.stage)
        if cls is None:
            reasons.append(f"there is no stage {one.stage} any more")
        elif cls.version != one.manifest["version"]:
            reasons.append(f"{one.stage} is at version {cls.version}, was at {one.manifest['version']}")
        elif set(one.manifest["parameters"]) != set(cls.own_parameters) - set(cls.resolved):
            reasons.append(f"{one.stage} has other settings than it had")
    missing = [made for made in entry.sources.values() if not catalogue.get(made)]
    return list(dict.fromkeys(reasons)) + [f"{name_of(made)} is not in the cache" for made in missing]
