"""What `browse` takes from an address: a page's name and parameters of fixed kinds. Anything else is refused.

No parameter is a path: a store is given by twelve digits of a key, images and regions by numbers.
"""

import math
import re
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

MOST_FIELDS, LONGEST = 12, 200


class Refused(Exception):
    """A request that is answered with the HTTP status `status` and one line."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def parse_query(query: str) -> dict[str, str]:
    """The parameters of an address. Raises Refused for those that are given twice, too many or too long."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise Refused(400, "the address has a faulty parameter") from error
    if len(dict(pairs)) < len(pairs) or any(len(value) > LONGEST for _, value in pairs):
        raise Refused(400, "the address has a parameter twice, or one that is too long")
    return dict(pairs)


def a_key(text: str) -> str:
    """Twelve digits of the key of an artefact."""
    return _matching("[0-9a-f]{12}", text)


def a_count(text: str) -> int:
    return int(_matching("[0-9]{1,9}", text))


def a_number(text: str) -> float:
    number = float(_matching(r"-?[0-9]{1,6}(\.[0-9]{0,6})?", text))
    assert math.isfinite(number)
    return number


def a_box(text: str) -> tuple[float, ...]:
    """x1,y1,x2,y2 in pixels, x1 < x2 and y1 < y2."""
    x1, y1, x2, y2 = (a_number(part) for part in _matching("[^,]+(,[^,]+){3}", text).split(","))
    if not (x1 < x2 and y1 < y2):
        raise ValueError
    return x1, y1, x2, y2


def one_of(*choices: str) -> Callable[[str], str]:
    def choose(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return choose


def _matching(pattern: str, text: str) -> str:
    if not re.fullmatch(pattern, text, re.ASCII):
        raise ValueError
    return text


def read_fields(query: Mapping[str, str], kinds: Mapping[str, tuple[Callable, object]]) -> dict:
    """The value of each field of `kinds`: (function that reads it, default). The default `...` means that it must be given.

    An empty value is the default: forms send all their fields. Raises Refused, naming the field.
    """
    if unknown := query.keys() - kinds.keys():
        raise Refused(400, f"the address has an unknown parameter ({min(unknown)!r}); follow the links of the pages")
    values = {}
    for name, (read, default) in kinds.items():
        text = query.get(name, "")
        try:
            values[name] = read(text) if text else default
        except ValueError as error:
            raise Refused(400, f"the parameter {name!r} has a value of another kind than expected") from error
        if values[name] is ...:
            raise Refused(400, f"the address lacks the parameter {name!r}")
    return values
