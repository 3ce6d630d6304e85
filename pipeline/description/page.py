"""The description of a data set as tables for the terminal, and as one HTML page that needs nothing beside it."""

from collections.abc import Iterator

from pipeline.description.describe import QUANTILES
from pipeline.report.page import environment, number, percent
from pipeline.tables import format_table

EXAMPLES = 5  # groups of duplicates that the table names
NO_PROPOSALS = "none in the cache"
ANCHORS = "Scaled to {shorter} pixels, at most {longest}; scales {scales}, ratios {ratios}"


def render(description: dict, remarks: list[str]) -> str:
    """The page. Every text in it is escaped."""
    settings = anchor_settings(description)
    return environment("pipeline.description").get_template("describe.html").render(
        d=description, remarks=remarks, quantiles=QUANTILES, settings=settings, examples=EXAMPLES,
    )


def anchor_settings(description: dict) -> str:
    anchors = description["anchors"]
    scales, ratios = (", ".join(f"{value:g}" for value in anchors[name]) for name in ("scales", "ratios"))
    return ANCHORS.format(shorter=anchors["shorter"], longest=anchors["longest"], scales=scales, ratios=ratios)


def table_text(description: dict) -> str:
    """All tables, one below the other."""
    return "\n".join(line for part in _parts(description) for line in (*part, ""))


def _parts(d: dict) -> Iterator[list[str]]:
    names = ("images", "without_objects", "objects", "difficult", "regions_to_ignore")
    rows = [(name, *(split[column] for column in names)) for name, split in d["splits"].items()]
    yield _table(("split", "images", "without objects", "objects", "difficult", "to ignore"), rows)
    spread = [f"{share} %" for share in QUANTILES]
    rows = [(title, *(d["images"][name] or ())) for title, name in (("image width", "width"), ("image height", "height"),
                                                                   ("objects an image", "objects_per_image"))]
    rows += [(title, *(d["objects"][name] or ())) for title, name in (("side of objects", "side"), ("height / width", "ratio"))]
    yield _table(("", *spread), [row for row in rows if len(row) > 1], decimals=2)
    yield _table(("class", "objects", "images", "small", "large", "side", "height / width", "anchors' IoU", ">= 0.5", ">= 0.7"),
                 [_class_row(d, name) for name in d["classes"]], decimals=2)
    anchors = d["anchors"]
    yield [f"anchors: {_fit_text(anchors)}", anchor_settings(d)]
    yield [_proposal_line(name, fit) for name, fit in d["proposals"].items()]
    yield [*_duplicate_lines(d)]


def _table(headers, rows, decimals: int = 1) -> list[str]:
    return format_table(headers, rows, decimals).splitlines()


def _class_row(d: dict, name: str) -> tuple:
    row, fit, middle = d["objects"]["classes"][name], d["anchors"]["classes"][name], QUANTILES.index(50)
    medians = [row[column][middle] if row[column] else None for column in ("side", "ratio")]
    return (name, row["objects"], row["images"], row["small"], row["large"], *medians, fit["mean_iou"], fit["recall_50"],
            fit["recall_70"])


def _proposal_line(split: str, fit: dict | None) -> str:
    if fit is None:
        return f"proposals of split '{split}': {NO_PROPOSALS}"
    return f"proposals of split '{split}' ({fit['source']}): {fit['boxes_per_image']:.0f} an image, {_fit_text(fit)}"


def _fit_text(fit: dict) -> str:
    return (f"mean best IoU {number(fit['mean_iou'], 3)}, at least 0.5 for {percent(fit['recall_50'])} % of the objects, "
            f"0.7 for {percent(fit['recall_70'])} %")


def _duplicate_lines(d: dict) -> Iterator[str]:
    copies = d["duplicates"]
    about = f"at most {copies['most_bits']} of {copies['bits']} bits of a difference hash differ"
    for title, groups in (("equal images", copies["equal"]), (f"near duplicates ({about})", copies["near"])):
        yield f"{title}: {len(groups)} group(s)"
        yield from (f"  {', '.join(group)}" for group in groups[:EXAMPLES])
        if len(groups) > EXAMPLES:
            yield f"  ... and {len(groups) - EXAMPLES} more"
    for pair in d["in_two_splits"]:
        first, second = pair["splits"]
        yield f"in both '{first}' and '{second}': {pair['equal']} image(s), {pair['near']} pair(s) of near duplicates"
    if not d["in_two_splits"]:
        yield "no image is in two splits"
