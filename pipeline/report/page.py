"""The report as one HTML page that needs nothing beside it: styles and pictures are in it."""

import math

import jinja2

from pipeline.report.embedding import svg_uri

DASH = "\N{EN DASH}"
PACKAGE = "pipeline.report"


def render(sections: dict) -> str:
    """The page with these `sections`, as the templates name them. Every text in it is escaped."""
    return environment().get_template("report.html").render(sections)


def environment(*packages: str) -> jinja2.Environment:
    """What finds the templates, first those of other `packages`, and shows numbers in them."""
    loaders = [jinja2.PackageLoader(package) for package in (*packages, PACKAGE)]
    templates = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"svg": svg_uri, "percent": percent, "duration": duration, "number": number}
    return templates


def number(value: float | None, decimals: int = 2) -> str:
    return DASH if value is None or math.isnan(value) else f"{value:.{decimals}f}"


def percent(share: float | None) -> str:
    """A share as a number of percent."""
    return number(None if share is None else 100 * share, 1)


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return DASH
    if seconds < 99.5:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
