"""Experiment files (LUIGI_CONFIG_PATH): an unknown setting or a missing file is an error."""

import configparser
import os

from pipeline.errors import PipelineError
from pipeline.files.reading import read_regular
from pipeline.text import flat
from tasks.engine.task import all_stages

# Sections that Luigi itself reads, from its configuration guide.
LUIGI_SECTIONS = {
    "DEFAULT", "core", "worker", "scheduler", "resources", "retcode", "logging", "email", "batch_notifier", "execution_summary",
    "task_history", "smtp",
}


def check_experiment_file(path: str | None) -> None:
    """Raises PipelineError unless every setting in the file `path` belongs to a stage or to Luigi. None: there is no file."""
    if not path:
        return
    if not os.path.exists(path) or os.path.isdir(path):
        raise PipelineError(f"LUIGI_CONFIG_PATH={path}: no such file; run in the project's folder or give its whole path")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_regular(path, "give an experiment file").decode(), path)
    except (configparser.Error, UnicodeDecodeError) as error:
        raise PipelineError(f"{path}: not a configuration file: {flat(error)}") from error
    known = settings()
    unknown = [f"[{section}] {name}" for section in parser.sections() for name in parser[section]
               if section not in LUIGI_SECTIONS and name.replace("-", "_") not in known.get(section, ())]
    unknown += [f"[{section}]" for section in parser.sections() if section not in LUIGI_SECTIONS | known.keys()]
    if unknown:
        listed = "; ".join(f"[{section}] {', '.join(sorted(names))}" for section, names in sorted(known.items()))
        raise PipelineError(f"{path}: unknown setting {', '.join(unknown)}; the known ones are {listed}")


def settings() -> dict[str, set[str]]:
    """The names of the settings of all stages, by section."""
    known: dict[str, set[str]] = {}
    for stage in all_stages():
        for _, parameter in stage.get_params():
            if place := getattr(parameter, "place", None):
                known.setdefault(place["section"], set()).add(place["name"])
    return known


def check_environment() -> None:
    """Ends the program with a message when the file that LUIGI_CONFIG_PATH names is wrong."""
    try:
        check_experiment_file(os.environ.get("LUIGI_CONFIG_PATH"))
    except PipelineError as error:
        raise SystemExit(f"error: {error}") from None
