"""The table and the page of a sweep, from what is in `sweep.json`."""

from pipeline.tables import format_table, in_percent

PAIRED = "difference: from the first row, with the 95 % interval of the paired bootstrap over the test images"
EFFECT = "paper: its difference, on its own data, from the file of rows"


def sweep_table(sweep: dict) -> str:
    """The table for the terminal: mAP in percent, differences in points."""
    rows, num_seeds = sweep["rows"], len(sweep["seeds"])
    columns: list[tuple[str, list]] = [
        ("row", [row["name"] for row in rows]), ("mAP", [in_percent(row["results"]["map"]) for row in rows]),
    ]
    if num_seeds > 1:
        columns.append(("spread", [in_percent(row["results"]["spread"]) for row in rows]))
    columns.append(("interval", [_interval(row["results"]["interval_95"]) for row in rows]))
    if len(rows) > 1:
        columns.append(("difference", [_difference(row) for row in rows]))
    if any(row["published_map"] for row in rows):
        columns.append(("published", [row["published_map"] for row in rows]))
    effects = [row["published_difference"] for row in rows]
    if has_effects := any(effect is not None for effect in effects):
        columns.append(("paper", [None if effect is None else f"{effect:+.1f}" for effect in effects]))
    for title, kind in (("computed", "computed"), ("shared", "shared")):
        columns.append((title, [row["cost"][kind]["artefacts"] for row in rows]))
    columns.append(("seconds", [row["cost"]["computed"]["seconds"] for row in rows]))
    headers, cells = zip(*columns, strict=True)
    seeds = f"seeds {', '.join(map(str, sweep['seeds']))}" if num_seeds > 1 else f"seed {sweep['seeds'][0]}"
    notes = [f"mAP in percent, {seeds}" + ("; spread: standard deviation over the seeds" if num_seeds > 1 else "")]
    notes += [PAIRED] if len(rows) > 1 else []
    notes += [EFFECT] if has_effects else []
    notes += ["computed: artefacts that no earlier row has; seconds: of these", *cost_lines(sweep["costs"])]
    notes += [f"not finished: {', '.join(sweep['unfinished'])}"] if sweep["unfinished"] else []
    return "\n".join([format_table(headers, list(zip(*cells, strict=True))), "", *notes])


def cost_lines(costs: dict) -> list[str]:
    """What the sweep computed, beside what separate runs would compute."""
    lines = []
    for name, unit in (("stages", "stages"), ("artefacts", "artefacts (stages and their shards)"), ("seconds", "seconds")):
        computed, separate, fewer = (costs[kind][name] for kind in ("computed", "separate", "times_fewer"))
        times = f": {fewer:.1f} times fewer" if fewer else ""
        lines.append(f"{computed:.0f} {unit} in place of {separate:.0f} in separate runs{times}")
    return lines


def sweep_page(sweep: dict) -> str:
    """The page: table, pictures, costs."""
    from pipeline.report.sweep import render_sweep

    return render_sweep(sweep, cost_lines(sweep["costs"]))


def _interval(ends: list[float | None]) -> str | None:
    return None if None in ends else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"


def _difference(row: dict) -> str | None:
    difference = (row["results"]["difference"] or {}).get("mean")
    if not difference or difference["difference"] is None:
        return None
    return f"{100 * difference['difference']:+.1f} ({_interval(difference['interval_95'])})"
