"""The rows of a sweep: from `--vary`, a grid of values, and from a file of named rows."""

import configparser
import itertools
from dataclasses import dataclass

from pipeline.files.reading import read_regular
from pipeline.text import flat
from tasks.engine.parameters import SettingError
from tasks.sweep.settings import SEED, parse_value, setting_of, values_of, written

PUBLISHED = "published_difference"  # in a file of rows: the paper's difference from its first row, in points of mAP
AS_GIVEN = "as given"  # the name of the only row of a sweep that varies nothing but the seed


@dataclass(frozen=True)
class Row:
    """A row: its name, the settings in which it differs from the command, and the paper's difference in points, if known."""

    name: str
    settings: dict
    published_difference: float | None = None

    def to_json(self) -> dict:
        settings = {name: written(name, value) for name, value in self.settings.items()}
        return {"name": self.name, "settings": settings, PUBLISHED: self.published_difference}


@dataclass(frozen=True)
class Plan:
    """The rows, the first of which is the baseline; the seeds of each row; the values of each varied setting."""

    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    varied: dict[str, list]


def make_plan(vary: str, rows_file: str, seed: int) -> Plan:
    """The plan of `--vary` and `--rows`; both together give each named row with each combination of values.

    `seed` is the only seed unless `--vary` has some. Raises SettingError for whatever is wrong.
    """
    varied = parse_vary(vary)
    seeds = tuple(varied.get(SEED, [seed]))
    named = read_rows(rows_file) if rows_file else [Row("", {})]
    grid = {name: values for name, values in varied.items() if name != SEED}
    rows = [
        Row(_name(row.name, combination, grid), row.settings | combination, row.published_difference)
        for row in named
        for combination in (dict(zip(grid, values)) for values in itertools.product(*grid.values()))
    ]
    for row, name in itertools.product(named, grid):
        if name in row.settings:
            raise SettingError(f"--vary: {name} is also a setting of the row [{row.name}] of {rows_file}; leave it out of one")
    return Plan(tuple(rows), seeds, varied)


def _name(name: str, combination: dict, grid: dict[str, list]) -> str:
    """The name of a row; settings with a single value are not in it."""
    parts = [f"{setting}={written(setting, value)}" for setting, value in combination.items() if len(grid[setting]) > 1]
    return ", ".join(filter(None, [name, " ".join(parts)])) or AS_GIVEN


def parse_vary(text: str) -> dict[str, list]:
    """The values of each setting in a text such as `layer=pool5,fc6 seed=0,1`."""
    varied: dict[str, list] = {}
    for part in text.split():
        name, equals, values = part.partition("=")
        if not equals:
            raise SettingError(f"--vary: found {part!r}, expected SETTING=VALUE,VALUE; spaces are between settings alone")
        name = setting_of(name, "--vary")
        if name in varied:
            raise SettingError(f"--vary: {name} is given twice; put all its values into one list")
        varied[name] = values_of(name, values, "--vary")
    return varied


def read_rows(path: str) -> list[Row]:
    """The rows in a file: a section each, with settings as in `svm_c = 0.01`; those under [DEFAULT] are in every row."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_regular(path, "give a file of rows").decode(), path)
    except configparser.DuplicateSectionError as error:
        raise SettingError(f"{path}: the row [{error.section}] is there twice (line {error.lineno}); rename one") from None
    except configparser.DuplicateOptionError as error:
        raise SettingError(f"{path}: the row [{error.section}] has {error.option} twice (line {error.lineno})") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: not a file of rows: {flat(error)}") from error
    if not parser.sections():
        raise SettingError(f"{path}: found no row; a row begins with its name in brackets, as in [fc6]")
    return [_row(parser[section], f"{path} [{section}]") for section in parser.sections()]


def _row(section: configparser.SectionProxy, source: str) -> Row:
    settings, published = {}, None
    for name, text in section.items():
        if name == PUBLISHED:
            published = _number(text, source)
            continue
        name = setting_of(name, source)
        if name == SEED:
            raise SettingError(f'{source}: the seed belongs to no row; use --vary "seed=0,1"')
        if name in settings:
            raise SettingError(f"{source}: {name} is given twice")
        settings[name] = parse_value(name, text, source)
    return Row(section.name, settings, published)


def _number(text: str, source: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingError(f"{source}: {PUBLISHED}: found {text!r}, expected points of mAP") from None
