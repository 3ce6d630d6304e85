"""The last step of a command: it shows the result of its stage, whether that was computed now or long ago."""

import os
import sys
from typing import Any

import luigi

from .artefacts import Artefact
from .errors import UserError, printable, printable_lines
from .task import CachedTask

TABLE = "table.txt"


class TaskParameter(luigi.Parameter):
    """A task."""

    def serialize(self, task: luigi.Task) -> str:
        return task.task_id


class ShowResult(luigi.Task):
    """Shows the result of the stage `of`. Never complete, always quick."""

    of: Any = TaskParameter(description="the stage; set by the program")
    shown = False

    @property
    def stage(self) -> str:
        """What errors call it."""
        return self.of.stage

    def requires(self) -> CachedTask:
        return self.of

    def complete(self) -> bool:
        return self.shown

    def run(self) -> None:
        self.of.show()
        self.shown = True


def with_result(task: luigi.Task) -> luigi.Task:
    """What a command for `task` runs: the stage whose result it asks for, and then its `show`, where that does something."""
    if not isinstance(task, CachedTask):
        return task
    wanted = task.shown_stage()
    return wanted if type(wanted).show is CachedTask.show else ShowResult(of=wanted)


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
