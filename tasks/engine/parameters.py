"""Parameters: normalised, so that equal values are the same text; checked against their range; set once for a whole run.

A setting is declared once, on the stage that it belongs to, with a section and a name for experiment files. Later stages get it
through `inherits`.
"""

import math
from fractions import Fraction

import luigi

from .errors import UserError


class SettingError(UserError):
    """A parameter has an impossible value."""


class Setting(luigi.Parameter):
    """A Luigi parameter that also knows its option, default and place.

    `option` is its name on the command line, such as `--svm-c`; `declared_default` its default as declared; `place` its section
    and name in experiment files, or None.
    """

    option = "--setting"  # until a stage declares it

    def __init__(self, *, default=None, config_path=None, **kwargs):
        self.declared_default, self.place = default, config_path
        super().__init__(default=default, config_path=config_path, **kwargs)

    def __set_name__(self, owner: type, name: str):
        super().__set_name__(owner, name)
        self.option = "--" + name.replace("_", "-")

    @property
    def default_text(self) -> str:
        """The default as text for the command line."""
        return self.serialize(self.normalize(self.declared_default))


class Text(Setting):
    """Any text."""


class Switch(Setting, luigi.BoolParameter):
    """`true` or `false`, always with its value: `--mirror false`."""

    def __init__(self, **kwargs):
        super().__init__(parsing=luigi.BoolParameter.EXPLICIT_PARSING, **kwargs)


class Number(Setting):
    """A number from `minimum` to `maximum`, converted to `kind` however it was written: 1000 is 1000.0."""

    def __init__(self, *, kind=float, minimum=-math.inf, maximum=math.inf, **kwargs):
        self.kind, self.minimum, self.maximum = kind, minimum, maximum
        super().__init__(**kwargs)

    def parse(self, text: str):
        return self.normalize(text)

    def normalize(self, value):
        try:
            exact = Fraction(value)  # a float would round large seeds
            number = self.kind(exact)
            if self.kind is int and number != exact:
                raise ValueError
        except (TypeError, ValueError, ArithmeticError):
            kind = "a whole" if self.kind is int else "a finite"
            raise SettingError(f"{self.option}: found {value!r}, expected {kind} number") from None
        if not self.minimum <= number <= self.maximum:
            raise SettingError(f"{self.option}: found {value}, expected a number from {self.minimum} to {self.maximum}")
        return number

    def serialize(self, value) -> str:
        return repr(value)


class Choice(Setting):
    """One of `choices`, or names of files, separated by commas, that end in one of `suffixes`."""

    def __init__(self, *, choices: tuple[str, ...], suffixes: tuple[str, ...] = (), **kwargs):
        self.choices, self.suffixes = choices, suffixes
        super().__init__(**kwargs)

    def parse(self, text: str) -> str:
        return self.normalize(text)

    def normalize(self, value) -> str:
        if value not in self.choices and not (self.suffixes and all(name.endswith(self.suffixes) for name in value.split(","))):
            files = f", or files whose names end in {' or '.join(self.suffixes)}" if self.suffixes else ""
            raise SettingError(f"{self.option}: found {value!r}, expected one of {', '.join(self.choices)}{files}")
        return value


class Names(Setting):
    """Names separated by commas; a tuple in code."""

    def parse(self, text: str) -> tuple[str, ...]:
        return tuple(name.strip() for name in text.split(",") if name.strip())

    def normalize(self, value) -> tuple[str, ...]:
        return self.parse(value) if isinstance(value, str) else tuple(value)

    def serialize(self, value) -> str:
        return ",".join(value)


class Numbers(Setting):
    """Different numbers of at least `minimum`, separated by commas; a tuple of `kind` in code."""

    def __init__(self, *, kind=int, minimum=0, **kwargs):
        self.kind, self.minimum = kind, minimum
        super().__init__(**kwargs)

    def parse(self, text: str) -> tuple:
        return self.normalize(text)

    def normalize(self, value) -> tuple:
        try:
            parts = filter(str.strip, value.split(",")) if isinstance(value, str) else value
            exact = tuple(map(Fraction, parts))
            numbers = tuple(map(self.kind, exact))
            if self.kind is int and numbers != exact:
                raise ValueError
        except (TypeError, ValueError, ArithmeticError):
            kind = "whole numbers" if self.kind is int else "numbers"
            raise SettingError(f"{self.option}: found {value!r}, expected {kind} separated by commas") from None
        if len(set(numbers)) < len(numbers):
            raise SettingError(f"{self.option}: found {self.serialize(numbers)}, expected each number once")
        if min(numbers, default=self.minimum) < self.minimum:
            raise SettingError(f"{self.option}: found {self.serialize(numbers)}, expected numbers from {self.minimum} on")
        return numbers

    def serialize(self, value) -> str:
        return ",".join(map(str, value))


def number(default: float, section: str, name: str, description: str, **options):
    """A float setting; `minimum` and `maximum` bound it."""
    return Number(default=default, config_path=_place(section, name), description=description, **options)


def integer(default: int, section: str, name: str, description: str, minimum=0, **options):
    """A whole-number setting of at least `minimum`."""
    place = _place(section, name)
    return Number(default=default, config_path=place, description=description, kind=int, minimum=minimum, **options)


def switch(default: bool, section: str, name: str, description: str, **options):
    """A setting that is `true` or `false`, always with its value: `--mirror false`."""
    return Switch(default=default, config_path=_place(section, name), description=description, **options)


def choice(default: str, choices: tuple[str, ...], section: str, name: str, description: str, **options):
    """A setting that is one of `choices`."""
    place, text = _place(section, name), f"{description} ({', '.join(choices)})"
    return Choice(default=default, config_path=place, description=text, choices=choices, **options)


def text(default: str, section: str, name: str, description: str, **options):
    """A setting that is any text."""
    return Text(default=default, config_path=_place(section, name), description=description, **options)


def names(default: tuple[str, ...], section: str, name: str, description: str, **options):
    """A setting that is a list of names."""
    return Names(default=default, config_path=_place(section, name), description=description, **options)


def integers(default: tuple[int, ...], section: str, name: str, description: str, **options):
    """A setting that is a list of whole numbers of at least `minimum`."""
    return Numbers(default=default, config_path=_place(section, name), description=description, **options)


def numbers(default: tuple[float, ...], section: str, name: str, description: str, **options):
    """A setting that is a list of numbers of at least `minimum`."""
    return Numbers(default=default, config_path=_place(section, name), description=description, kind=float, **options)


def _place(section: str, name: str) -> dict[str, str]:
    return {"section": section, "name": name}


def seed():
    """The seed, on each stage that draws random numbers."""
    return integer(0, "run", "seed", "seed of every random choice")


def share(*stages: type, without: tuple[str, ...] = ()) -> None:
    """Gives each of `stages`, which require each other, the parameters of all of them except those named in `without`."""
    for stage in stages:
        inherits(*stages, without=without)(stage)


def inherits(*stages, without: tuple[str, ...] = ()):
    """Class decorator: the class gets the parameters of `stages` as well, except those named in `without`.

    Luigi's own decorator takes no `without`; a stage that needs one task for several splits leaves out `split`. `shard` is always
    left out: a stage that reads a sharded stage reads the whole of it.
    """
    without = (*without, "shard")

    def decorate(stage):
        for parent in stages:
            for name, parameter in parent.get_params():
                if name not in without and not hasattr(stage, name):
                    setattr(stage, name, parameter)
        return stage

    return decorate
