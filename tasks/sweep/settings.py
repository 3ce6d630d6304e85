"""The settings that a sweep may vary: those of the stage that evaluates a row, by name, with values as on the command line."""

import difflib

from tasks.engine import parameters
from tasks.engine.parameters import SettingError
from tasks.evaluation.evaluate import Evaluate

SEED = "seed"
LISTS = parameters.Names, parameters.Numbers  # settings whose value is a list: `|` is between two values, not a comma


def known_settings() -> dict[str, parameters.Setting]:
    """The settings of `Evaluate` that can change a result, by name."""
    return {name: parameter for name, parameter in Evaluate.get_params() if parameter.significant}


def setting_of(name: str, source: str) -> str:
    """The name of the setting that `name` means in `source`, with `-` or `_`. Raises SettingError if it is unknown."""
    known, wanted = known_settings(), name.strip().removeprefix("--").replace("-", "_")
    if wanted not in known:
        nearest = difflib.get_close_matches(wanted, known, n=1, cutoff=0.6)
        advice = f"did you mean {nearest[0]}?" if nearest else "docs/settings.md lists them"
        raise SettingError(f"{source}: unknown setting {name.strip()!r}; {advice}")
    return wanted


def parse_value(name: str, text: str, source: str):
    """The value of the setting `name` that `text` stands for. Raises SettingError for an impossible one."""
    try:
        parameter = known_settings()[name]
        return parameter.normalize(parameter.parse(text.strip()))
    except SettingError as error:
        raise SettingError(f"{source}: {error}") from None
    except ValueError:  # Luigi's, for true and false
        raise SettingError(f"{source}: --{name.replace('_', '-')}: found {text!r}, expected true or false") from None


def values_of(name: str, text: str, source: str) -> list:
    """The values in a list: commas between them, or `|` if there is one or the setting is a list itself. Each value once."""
    separator = "|" if "|" in text or isinstance(known_settings()[name], LISTS) else ","
    values = [parse_value(name, part, source) for part in text.split(separator)]
    if repeated := [value for number, value in enumerate(values) if value in values[:number]]:
        raise SettingError(f"{source}: {name} has the value {written(name, repeated[0])} twice")
    return values


def written(name: str, value) -> str:
    """The value of a setting as on the command line."""
    return known_settings()[name].serialize(value)
