"""Checks of single values in a JSON file that may have come from anybody, each with the words that say what was expected.

A kind of value is a pair: the words, and a function that says whether a value is of this kind.
"""

import math
from collections.abc import Callable

from pipeline.text import shown

Kind = tuple[str, Callable]
# Beyond what any model has, within what memory has: sides in pixels, sizes and shapes in a list.
LONGEST_SIDE, LONGEST_LIST = 20_000, 100


class Wrong(ValueError):
    """What is wrong with a value."""


def check(value, name: str, kind: Kind) -> None:
    """Raises Wrong, with the name and the value, unless the value is of its kind."""
    expected, is_right = kind
    if not is_right(value):
        raise Wrong(f"{name} is {shown(value)}, expected {expected}")


def whole(minimum: int, maximum: float = math.inf) -> Kind:
    text = f"a whole number from {minimum}" + (f" to {maximum}" if maximum < math.inf else "")
    return text, lambda value: type(value) is int and minimum <= value <= maximum


def number(minimum: float, maximum: float) -> Kind:
    return f"a number from {minimum} to {maximum}", lambda value: type(value) in (int, float) and minimum <= value <= maximum


def one_of(*choices: str) -> Kind:
    return f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices


def list_of(kind: Kind, maximum: float = LONGEST_LIST) -> Kind:
    text, is_right = kind
    return f"a list of 1 to {maximum}, each {text}", lambda value: (
        isinstance(value, list) and 1 <= len(value) <= maximum and all(map(is_right, value))
    )


NAME: Kind = ("a name", lambda value: isinstance(value, str) and bool(value.strip()))
OBJECT: Kind = ("an object", lambda value: isinstance(value, dict))
SWITCH: Kind = ("true or false", lambda value: type(value) is bool)
PRECISION = one_of("float32", "bfloat16")
SIDE = whole(1, LONGEST_SIDE)
