"""Parameters that mean one value each: normalised, range-checked, and set in one place for a whole run.

A setting is declared once, on the stage it belongs to, with a section and a name of its own in experiment files; it reaches the
stages after that one through `inherits`.
"""

import math
from fractions import Fraction

import luigi

from pipeline.errors import PipelineError


class SettingError(PipelineError):
    """A parameter with a value that it cannot have."""


class Number(luigi.Parameter):
    """A number of at least `minimum` (and at most `maximum`), kept as `kind` whatever it was written as: 1000 is 1000.0."""

    def __init__(self, *args, kind=float, minimum=-math.inf, maximum=math.inf, **kwargs):
        self.kind, self.minimum, self.maximum = kind, minimum, maximum
        super().__init__(*args, **kwargs)

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
            raise SettingError(f"{option(self)}: found {value!r}, expected {kind} number") from None
        if not self.minimum <= number <= self.maximum:
            raise SettingError(f"{option(self)}: found {value}, expected a number from {self.minimum} to {self.maximum}")
        return number

    def serialize(self, value) -> str:
        return repr(value)


class Choice(luigi.Parameter):
    """One of `choices`; or files, separated by commas, whose names end in one of `suffixes`."""

    def __init__(self, *args, choices: tuple[str, ...], suffixes: tuple[str, ...] = (), **kwargs):
        self.choices, self.suffixes = choices, suffixes
        super().__init__(*args, **kwargs)

    def parse(self, text: str) -> str:
        return self.normalize(text)

    def normalize(self, value) -> str:
        if value not in self.choices and not (self.suffixes and all(name.endswith(self.suffixes) for name in value.split(","))):
            files = f", or files whose names end in {' or '.join(self.suffixes)}" if self.suffixes else ""
            raise SettingError(f"{option(self)}: found {value!r}, expected one of {', '.join(self.choices)}{files}")
        return value


class Names(luigi.Parameter):
    """Names separated by commas; a tuple in code."""

    def parse(self, text: str) -> tuple[str, ...]:
        return tuple(name.strip() for name in text.split(",") if name.strip())

    def normalize(self, value) -> tuple[str, ...]:
        return self.parse(value) if isinstance(value, str) else tuple(value)

    def serialize(self, value) -> str:
        return ",".join(value)


class Numbers(luigi.Parameter):
    """Different numbers of at least `minimum`, separated by commas; a tuple of `kind` in code."""

    def __init__(self, *args, kind=int, minimum=0, **kwargs):
        self.kind, self.minimum = kind, minimum
        super().__init__(*args, **kwargs)

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
            raise SettingError(f"{option(self)}: found {value!r}, expected {kind} separated by commas") from None
        if len(set(numbers)) < len(numbers):
            raise SettingError(f"{option(self)}: found {self.serialize(numbers)}, expected each number once")
        if min(numbers, default=self.minimum) < self.minimum:
            raise SettingError(f"{option(self)}: found {self.serialize(numbers)}, expected numbers from {self.minimum} on")
        return numbers

    def serialize(self, value) -> str:
        return ",".join(map(str, value))


def option(parameter: luigi.Parameter) -> str:
    """What the user calls `parameter`: `--svm-c`."""
    return "--" + getattr(parameter, "_attribute_name", "setting").replace("_", "-")


def default_of(parameter: luigi.Parameter) -> str:
    """The default of `parameter`, as it would be given."""
    return parameter.serialize(parameter.normalize(parameter._default))


def _setting(parameter_class, default, section: str, name: str, description: str, **options):
    config_path = {"section": section, "name": name}
    return parameter_class(default=default, config_path=config_path, description=description, **options)


def number(default: float, section: str, name: str, description: str, **options):
    """A float setting; `minimum` and `maximum` bound it."""
    return _setting(Number, default, section, name, description, **options)


def integer(default: int, section: str, name: str, description: str, minimum=0, **options):
    """A whole-number setting of at least `minimum`."""
    return _setting(Number, default, section, name, description, kind=int, minimum=minimum, **options)


def switch(default: bool, section: str, name: str, description: str, **options):
    """A setting that is `true` or `false`, always with its value: `--mirror false`."""
    parsing = luigi.BoolParameter.EXPLICIT_PARSING
    return _setting(luigi.BoolParameter, default, section, name, description, parsing=parsing, **options)


def choice(default: str, choices: tuple[str, ...], section: str, name: str, description: str, **options):
    """A setting that is one of `choices`."""
    text = f"{description} ({', '.join(choices)})"
    return _setting(Choice, default, section, name, text, choices=choices, **options)


def text(default: str, section: str, name: str, description: str, **options):
    """A setting that is any text."""
    return _setting(luigi.Parameter, default, section, name, description, **options)


def names(default: tuple[str, ...], section: str, name: str, description: str, **options):
    """A setting that is a list of names."""
    return _setting(Names, default, section, name, description, **options)


def integers(default: tuple[int, ...], section: str, name: str, description: str, **options):
    """A setting that is a list of whole numbers of at least `minimum`."""
    return _setting(Numbers, default, section, name, description, **options)


def numbers(default: tuple[float, ...], section: str, name: str, description: str, **options):
    """A setting that is a list of numbers of at least `minimum`."""
    return _setting(Numbers, default, section, name, description, kind=float, **options)


def seed():
    """The seed, on each stage that draws random numbers."""
    return integer(0, "run", "seed", "seed of every random choice")


def inherits(*stages, without: tuple[str, ...] = ()):
    """Class decorator: the parameters of `stages` become parameters of the class as well, but for those named in `without`.

    Unlike Luigi's own, it can leave out `split` where a stage needs one task for several splits, and it always leaves out
    `shard`: what reads a sharded stage reads the whole of it.
    """
    without = (*without, "shard")

    def decorate(stage):
        for other in stages:
            for name, parameter in other.get_params():
                if name not in without and not hasattr(stage, name):
                    setattr(stage, name, parameter)
        return stage

    return decorate
