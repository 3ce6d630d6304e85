"""The page of a sweep: a table of the rows, their mAP and differences as pictures, and what they cost."""

from pipeline.report.page import environment
from pipeline.report.plots import bars, offsets
from pipeline.tables import in_percent


def render_sweep(sweep: dict, cost_lines: list[str]) -> str:
    """The page for what `sweep.json` holds; every text in it is escaped."""
    rows, pictures = sweep["rows"], []
    maps = {row["name"]: in_percent(row["results"]["map"]) for row in rows}
    ends: dict[str, list] = {row["name"]: [in_percent(end) for end in row["results"]["interval_95"]] for row in rows}
    pictures.append(("mAP of the rows", bars(maps, "mAP in percent, with 95 % intervals", ends)))
    if len(rows) > 1:
        points = {}
        for row in rows[1:]:
            difference = (row["results"]["difference"] or {}).get("mean", {})
            low, high = difference.get("interval_95", (None, None))
            points[row["name"]] = (*map(in_percent, (difference.get("difference"), low, high)), row["published_difference"])
        pictures.append(("difference of each row from the first", offsets(points, "points of mAP above the first row")))
    classes = list(rows[0]["results"]["classes"])
    values = {"sweep": sweep, "rows": rows, "classes": classes, "pictures": pictures, "costs": cost_lines}
    return environment().get_template("sweep.html").render(values)
