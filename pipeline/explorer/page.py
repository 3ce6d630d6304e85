"""The pages of the explorer as HTML. Every text in them is escaped; they load nothing from elsewhere."""

from functools import cache
from importlib.resources import files

import jinja2

from pipeline.report.page import number

PACKAGE = "pipeline.explorer"
STATIC = {"style.css": "text/css; charset=utf-8", "search.js": "text/javascript; charset=utf-8"}


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(PACKAGE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment


def render(template: str, **values) -> bytes:
    """The page that `template` makes of `values`."""
    return _environment().get_template(f"{template}.html").render(values).encode()


def static_file(name: str) -> bytes:
    """The style sheet or the script, one of STATIC."""
    return files(PACKAGE).joinpath("templates", name).read_bytes()
