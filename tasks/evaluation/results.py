"""What a command for all chains shows at its end: the table, its stages, and the place of the results."""

import contextlib
import logging
import os

from pipeline.text import printable
from tasks.engine.artefacts import Artefact
from tasks.engine.lineage import FROM_CACHE, manifests_behind, stage_rows
from tasks.engine.printing import TABLE, tell
from tasks.engine.storage import refused

logger = logging.getLogger("stages")

SUMMARY, REPORT = "summary.json", "report.html"
LATEST = "latest"  # link in the cache to the results of the last run


def show_results(artefact: Artefact) -> None:
    """Prints the table in `artefact` and the stages that made it, and lets `latest` point to it."""
    point_latest(artefact)
    tell(f"\n{artefact.path(TABLE).read_text()}\n{stage_table([artefact])}\n")
    names = ", ".join(name for name in (SUMMARY, TABLE, REPORT) if name in artefact.manifest["files"])
    tell(printable(f"results: {artefact.folder}/ ({names}), also as {artefact.cache / LATEST}"))


def stage_table(artefacts: list[Artefact]) -> str:
    """Time and size of each stage behind `artefacts`, and whether this command computed it."""
    from pipeline.tables import format_table

    rows = stage_rows(manifests_behind(artefacts))
    table = format_table(["stage", "artefacts", "seconds", "peak GB", "MB on disk", "this run"], rows, decimals=2)
    return table if any(row[-1] != FROM_CACHE for row in rows) else f"{table}\n\nNothing to do: every stage was in the cache."


def point_latest(artefact: Artefact) -> None:
    """Lets the link `latest` in the cache point to `artefact`, in one atomic step.

    If that fails, for example on a read-only disk, there is only a warning: the result exists anyway.
    """
    link, new = artefact.cache / LATEST, artefact.cache / f".latest.{os.getpid()}"
    target = artefact.folder.relative_to(artefact.cache)
    if link.is_symlink() and link.readlink() == target:
        return
    try:
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.replace(link)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        logger.warning("%s; the link does not point to these results", refused(link, error))
