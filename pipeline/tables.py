"""Aligned plain-text tables for the terminal."""

import math
from collections.abc import Sequence

from pipeline.text import printable

Cell = str | float | None


def format_table(headers: Sequence[str], rows: Sequence[Sequence[Cell]], decimals: int = 1, footer: int = 0) -> str:
    """A table under `headers`: first column left-aligned, the others right-aligned; the last `footer` rows below a rule.

    Floats get `decimals` places, None and NaN a dash; integers and strings stand as they are, but a row stays a line: names of
    classes come from outside, and what cannot be printed is written out.
    """
    lines = [list(map(printable, headers)), *([_text(cell, decimals) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(cell.rjust(width) if column else cell.ljust(width)
                        for column, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip() for line in lines]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    split = len(padded) - footer
    body = padded[1:split]
    return "\n".join([padded[0], rule, *body, *([rule, *padded[split:]] if footer else [])])


def in_percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def interval_text(bounds: Sequence[float | None]) -> str | None:
    """The two bounds of an interval of shares, in percent; None where one is unknown."""
    low, high = bounds
    return None if low is None or high is None else f"{100 * low:.1f} - {100 * high:.1f}"


def _text(cell: Cell, decimals: int) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    return f"{cell:.{decimals}f}" if isinstance(cell, float) else printable(cell)
