"""The table of AP by class."""

import math

import numpy as np

from pipeline.evaluation.voc_ap import Result
from pipeline.tables import Cell, format_table


def ap_table(result: Result, ends: np.ndarray | None = None, metric: str = "area") -> str:
    """AP by class in percent, the mean last. `ends` [2 x (C + 1)]: the 95 % interval of AP by `metric` (`bootstrap.interval`)."""
    names = {"07": "AP 11-point", "area": "AP area"}
    rows: list[list[Cell]] = [
        [row.name, row.num_positives, row.num_detections, 100 * row.ap_07, 100 * row.ap_area] for row in result.classes
    ]
    sums = sum(row.num_positives for row in result.classes), sum(row.num_detections for row in result.classes)
    rows.append(["mean", *sums, 100 * result.mean_ap_07, 100 * result.mean_ap_area])
    headers = ["class", "objects", "detections", *names.values()]
    if ends is not None:
        headers.append(f"95 % of {names[metric]}")
        rows = [[*row, _range(low, high)] for row, (low, high) in zip(rows, 100 * ends.T, strict=True)]
    return format_table(headers, rows, footer=1)


def _range(low: float, high: float) -> Cell:
    return None if math.isnan(low) else f"{low:.1f} - {high:.1f}"
