"""The table and the page of a sweep, from a file made by hand."""

import html

from tasks.sweep.table import sweep_page, sweep_table

COSTS = {
    "computed": {"stages": 10, "artefacts": 20, "seconds": 30.0}, "separate": {"stages": 40, "artefacts": 60, "seconds": 75.0},
    "times_fewer": {"stages": 4.0, "artefacts": 3.0, "seconds": 2.5},
}


def row(name: str, mean: float, difference: float | None = None, published: float | None = None) -> dict:
    figures = difference is not None and {"difference": difference, "interval_95": [difference - 0.02, difference + 0.01],
                                          "share_above": 0.0}
    cost = {"stages": 2, "artefacts": 5, "seconds": 7.25}
    return {
        "name": name, "settings": {"layer": "fc6"}, "published_difference": published, "published_map": None,
        "artefacts": ["Evaluate/0123456789ab"], "cost": {"computed": cost, "shared": cost, "separate": cost},
        "results": {
            "map": mean, "maps": [mean - 0.01, mean + 0.01], "spread": 0.0141, "interval_95": [mean - 0.05, mean + 0.05],
            "classes": {"cat": {"ap": mean, "interval_95": [mean, mean]}}, "difference": figures and {"mean": figures},
        },
    }


def sweep(*rows: dict, **others) -> dict:
    return {"seeds": [0, 1], "baseline": rows[0]["name"], "costs": COSTS, "unfinished": [], "rows": list(rows), **others}


def test_the_table():
    lines = sweep_table(sweep(row("base", 0.5), row("low", 0.44, -0.06, -4))).splitlines()
    assert lines[0].split() == ["row", "mAP", "spread", "interval", "difference", "paper", "computed", "shared", "seconds"]
    assert lines[2].split() == ["base", "50.0", "1.4", "45.0", "to", "55.0", "-", "-", "5", "5", "7.2"]
    assert " ".join(lines[3].split()) == "low 44.0 1.4 39.0 to 49.0 -6.0 (-8.0 to -5.0) -4.0 5 5 7.2"
    assert lines[-3:] == [
        "10 stages in place of 40 in separate runs: 4.0 times fewer",
        "20 artefacts (stages and their shards) in place of 60 in separate runs: 3.0 times fewer",
        "30 seconds in place of 75 in separate runs: 2.5 times fewer",
    ]


def test_columns_that_say_nothing_are_left_out():
    lines = sweep_table(sweep(row("base", 0.5), seeds=[3])).splitlines()
    assert lines[0].split() == ["row", "mAP", "interval", "computed", "shared", "seconds"]
    assert "mAP in percent, seed 3" in lines
    assert not any("paper" in line or "paired" in line for line in lines)


def test_rows_that_failed_are_named():
    assert sweep_table(sweep(row("base", 0.5), unfinished=["b", "c"])).endswith("\nnot finished: b, c")


def test_a_row_without_comparison_or_figures():
    second = row("other", 0.4)
    second["results"] |= {"map": None, "maps": [None, None], "spread": None, "interval_95": [None, None]}
    lines = sweep_table(sweep(row("base", 0.5), second)).splitlines()
    assert lines[3].split() == ["other", "-", "-", "-", "-", "5", "5", "7.2"]
    assert "other" in sweep_page(sweep(row("base", 0.5), second))


def test_the_page_escapes_names_and_needs_no_other_file():
    page = sweep_page(sweep(row("base", 0.5), row("<script>", 0.44, -0.06, -4)))
    assert "<script>" not in page
    assert html.escape("<script>") in page
    assert "-6.0 <small>-8.0 to -5.0</small>" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert page.count("<h2>") == 4
