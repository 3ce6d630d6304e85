"""The table of costs."""

import pytest

from pipeline.segmentation.cost_table import cost_row, cost_table, with_ratios
from pipeline.segmentation.costs import Cost


def test_ratios_are_to_fcn32s():
    costs = {"patches": Cost(75, 10**6, 5 * 10**9, 10**6), "fcn32s": Cost(1, 10**5, 10**8, 0)}
    rows = with_ratios([cost_row(name, cost, 32) for name, cost in costs.items()])
    assert [row["over_fcn32s"] for row in rows] == [pytest.approx(50), 1]
    lines = cost_table(rows, {"fcn32s": 0.5}).splitlines()
    assert lines[2].split() == ["patches", "32", "75", "1.000", "5.000", "50.0", "1.00", "not", "run"]
    assert lines[3].split()[-1] == "0.5"
