"""Plain-text tables."""

import pytest

from pipeline.tables import format_table


def test_columns_are_aligned():
    rows = [["rcnn", 12, 54.249], ["spp-net", 7, None], ["all", 1000, float("nan")]]
    table = format_table(["chain", "n", "mAP"], rows, footer=1)
    assert table.splitlines() == [
        "chain       n   mAP",
        "-------------------",
        "rcnn       12  54.2",
        "spp-net     7     -",
        "-------------------",
        "all      1000     -",
    ]


def test_decimals_and_no_rows():
    assert format_table(["a", "b"], [["x", 1.23456]], decimals=3).splitlines()[-1] == "x  1.235"
    assert format_table(["a", "b"], []) == "a  b\n----"


def test_rows_must_be_as_long_as_the_headers():
    with pytest.raises(ValueError, match="zip"):
        format_table(["a", "b"], [["x"]])
