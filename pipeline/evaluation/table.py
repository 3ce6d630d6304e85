"""Aligned plain-text tables for the terminal, and the table of AP by class."""

import math
from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.voc_ap import Result
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


def ap_table(result: Result, ends: np.ndarray | None = None, metric: str = "area") -> str:
    """AP by class in percent, the mean last. `ends` [2 x (C + 1)]: the 95 % interval of AP by `metric` (`bootstrap.interval`)."""
    names = {"07": "AP 11-point", "area": "AP area"}
    rows = [[one.name, one.num_positives, one.num_detections, 100 * one.ap_07, 100 * one.ap_area] for one in result.classes]
    sums = sum(one.num_positives for one in result.classes), sum(one.num_detections for one in result.classes)
    rows.append(["mean", *sums, 100 * result.mean_ap_07, 100 * result.mean_ap_area])
    headers = ["class", "objects", "detections", *names.values()]
    if ends is not None:
        headers.append(f"95 % of {names[metric]}")
        rows = [[*row, _range(low, high)] for row, (low, high) in zip(rows, 100 * ends.T, strict=True)]
    return format_table(headers, rows, footer=1)


def _range(low: float, high: float) -> Cell:
    return None if math.isnan(low) else f"{low:.1f} - {high:.1f}"


def _text(cell: Cell, decimals: int) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    return f"{cell:.{decimals}f}" if isinstance(cell, float) else printable(cell)
