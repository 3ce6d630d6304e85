"""How an artefact is made again: its settings compared with the defaults, and the command line that gives the same key."""

import shlex
from functools import cache

import luigi

from tasks.engine.catalogue import Catalogue, Entry, name_of
from tasks.engine.task import all_stages

# Settings that belong to a command, not to an artefact.
OF_A_RUN = ("cache_dir", "force", "engine", "in_flight", "latency", "check_disk")  # settings that say where and when, not what


@cache
def stage_class(stage: str) -> type | None:
    """The class of a stage; None if this version of the code does not have the stage."""
    return {task_class.stage: task_class for task_class in all_stages()}.get(stage)


def default(stage: str, name: str) -> str | None:
    """The default of a setting, as written in manifests; None if the stage does not have the setting."""
    parameter = dict(stage_class(stage).get_params()).get(name) if stage_class(stage) else None
    return None if parameter is None else parameter.default_text


def written(parameter: luigi.Parameter, value) -> str:
    return parameter.serialize(parameter.normalize(value))


def own_settings(entry: Entry) -> tuple[str, ...]:
    """The names of the settings that belong to the artefact's stage."""
    return stage_class(entry.stage).own_parameters if stage_class(entry.stage) else tuple(entry.manifest["parameters"])


def changed_settings(entry: Entry) -> dict[str, str]:
    """The settings that differ from their defaults: first the stage's own, then those of the stages before it."""
    own = own_settings(entry)
    settings = {name: text for name, text in entry.manifest["settings"].items() if name not in OF_A_RUN}
    changed = {name: text for name, text in settings.items() if text != default(entry.stage, name)}
    return dict(sorted(changed.items(), key=lambda item: item[0] not in own))


def command_line(catalogue: Catalogue, entry: Entry) -> str:
    """The command that makes `entry`. It omits a setting only if its value is the default, in the code and on this machine."""
    words = ["luigi", "--module", "tasks", entry.stage]
    parameters = dict(stage_class(entry.stage).get_params())
    settings = {name: text for name, text in entry.manifest["settings"].items() if name in parameters and name not in OF_A_RUN}
    for name, text in {"cache_dir": str(catalogue.cache), **settings}.items():
        parameter = parameters[name]
        # luigi.cfg and an experiment file may set other defaults, which Luigi would use.
        if {text} != {default(entry.stage, name), written(parameter, parameter.task_value(entry.stage, name))}:
            option = f"--{name.replace('_', '-')}"
            words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    return shlex.join(words)


def outdated(catalogue: Catalogue, entry: Entry) -> list[str]:
    """Why today's code gives another key: stages behind `entry` no longer exist, or have another version or other settings."""
    reasons = []
    for needed in (catalogue.entries[name] for name in sorted(catalogue.closure([entry]))):
        cls = stage_class(needed.stage)
        if cls is None:
            reasons.append(f"the stage {needed.stage} no longer exists")
        elif cls.version != needed.manifest["version"]:
            reasons.append(f"{needed.stage} is at version {cls.version}, was at {needed.manifest['version']}")
        elif set(needed.manifest["parameters"]) != set(cls.own_parameters) - set(cls.resolved):
            reasons.append(f"{needed.stage} now has other settings")
    missing = [source for source in entry.sources.values() if not catalogue.get(source)]
    return list(dict.fromkeys(reasons)) + [f"{name_of(source)} is not in the cache" for source in missing]
