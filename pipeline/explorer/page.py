"""The pages of the explorer as HTML. Every text in them is escaped; they load nothing from elsewhere."""

from functools import cache
from importlib.resources import files

from pipeline.report.page import PACKAGE as REPORT
from pipeline.report.page import environment

PACKAGE = "pipeline.explorer"
STATIC = {"style.css": "text/css; charset=utf-8", "search.js": "text/javascript; charset=utf-8"}
# The style sheet begins with what all pages of the project share.
PARTS = {"style.css": ((REPORT, "base.css"), (PACKAGE, "explorer.css")), "search.js": ((PACKAGE, "search.js"),)}

_environment = cache(environment)


def render(template: str, **values) -> bytes:
    """The page that `template` makes of `values`."""
    return _environment(PACKAGE).get_template(f"{template}.html").render(values).encode()


def static_file(name: str) -> bytes:
    """The style sheet or the script, one of STATIC."""
    return b"".join(files(package).joinpath("templates", part).read_bytes() for package, part in PARTS[name])
