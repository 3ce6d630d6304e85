"""FullPipeline: every chain on one data set, one table at the end, one report."""

import os

from pipeline.text import printable
from tasks import parameters
from tasks.artefacts import Artefact
from tasks.cache import CachedTask
from tasks.lineage import stage_table, with_inputs
from tasks.report import REPORT, Report
from tasks.show import ShowResult, tell
from tasks.summary import SUMMARY, TABLE, Summarise

LATEST = "latest"


@parameters.inherits(Report)
class FullPipeline(ShowResult):
    """Runs what is missing, then shows the table and points `latest` in the cache at the results."""

    def requires(self) -> CachedTask:
        return self.clone(Report if self.report else Summarise)

    def show(self, artefact: Artefact) -> None:
        point_latest(artefact)
        tell(f"\n{artefact.path(TABLE).read_text()}\n{stage_table(with_inputs([artefact]))}\n")
        files = ", ".join([SUMMARY, TABLE, REPORT][: 2 + self.report])
        tell(printable(f"results: {artefact.folder}/ ({files}), also as {artefact.cache / LATEST}"))


def point_latest(artefact: Artefact) -> None:
    """Makes the link `latest` in the cache point at `artefact`, in one step."""
    link, new = artefact.cache / LATEST, artefact.cache / f".latest.{os.getpid()}"
    new.unlink(missing_ok=True)
    new.symlink_to(artefact.folder.relative_to(artefact.cache))
    new.replace(link)
