"""Tasks that show a result: they run what is missing, then print the table, whether it was computed now or long ago."""

import abc

import luigi

from pipeline.text import printable, printable_lines
from tasks.artefacts import Artefact
from tasks.cache import CachedTask

TABLE = "table.txt"


class ShowResult(luigi.Task):
    """Never complete, always quick. A subclass requires the one stage whose result it shows."""

    shown = False

    @property
    def stage(self) -> str:
        """What errors call it."""
        return self.task_family

    @abc.abstractmethod
    def requires(self) -> CachedTask:
        """The stage."""

    @abc.abstractmethod
    def show(self, artefact: Artefact) -> None:
        """Prints the result."""

    def complete(self) -> bool:
        return self.shown

    def run(self) -> None:
        self.show(self.requires().artefact)
        self.shown = True


def show_table(artefact: Artefact, *files: str) -> None:
    """Prints the artefact's table, and where `files` of it are."""
    tell(f"\n{artefact.path(TABLE).read_text()}\nresults: {printable(artefact.folder)}/ ({', '.join(files)})")


def tell(text: str) -> None:
    """Prints `text`. Its line ends stay; what else would steer a terminal is written out, as a name from outside may hold it."""
    print(printable_lines(text), flush=True)
