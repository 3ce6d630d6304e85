"""Tasks that show a result: they run what is missing, then print the table, whether it was computed now or long ago."""

import abc
import os
import sys

import luigi

from .artefacts import Artefact
from .errors import UserError, printable, printable_lines
from .task import CachedTask

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
    """Prints `text`. Its line ends stay; what else would steer a terminal is written out, as a name from outside may hold it.

    Raises UserError when standard output cannot be written; if its reader has gone (`| head`), the rest is left out.
    """
    try:
        print(printable_lines(text), flush=True)
    except OSError as error:
        # Python would try again when the process ends, and show a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            advice = "the result is in the cache: free some space there, or print elsewhere, and give the same command again"
            raise UserError(f"standard output: cannot be written: {error.strerror}; {advice}") from error
