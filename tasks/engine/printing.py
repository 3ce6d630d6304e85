"""The last step of a command: it shows the result of its stage, whether the stage ran now or long ago."""

import os
import sys
from typing import Any

import luigi

from .artefacts import Artefact
from .errors import UserError, printable, printable_lines
from .task import CachedTask

TABLE = "table.txt"


class TaskParameter(luigi.Parameter):
    """A parameter that is a task."""

    def serialize(self, task: luigi.Task) -> str:
        return task.task_id


class ShowResult(luigi.Task):
    """Shows the result of the stage `of`. Never complete, always quick."""

    of: Any = TaskParameter(description="the stage; set by the program")
    shown = False
    is_wanted = False  # whether this command has such a task

    @property
    def stage(self) -> str:
        """The name in error messages."""
        return self.of.stage

    def requires(self) -> CachedTask:
        return self.of

    def complete(self) -> bool:
        return self.shown

    def run(self) -> None:
        self.of.show()
        self.shown = True


def with_result(task: luigi.Task) -> luigi.Task:
    """What a command for `task` runs: the stage whose result is wanted, followed by its `show`, if it has one."""
    if not isinstance(task, CachedTask):
        return task
    stage = task.shown_stage()
    stage.is_of_command = True
    if type(stage).show is CachedTask.show:
        return stage
    ShowResult.is_wanted = True
    return ShowResult(of=stage)


def only_shows() -> bool:
    """Whether this command has nothing to do but to show a result that is in the cache, as far as it has looked."""
    return ShowResult.is_wanted and not CachedTask.any_missing


def show_table(artefact: Artefact, *files: str) -> None:
    """Prints the artefact's table, and where its `files` are."""
    tell(f"\n{artefact.path(TABLE).read_text()}\nresults: {printable(artefact.folder)}/ ({', '.join(files)})")


def tell(text: str) -> None:
    """Prints `text`. Keeps line ends; escapes other control characters, which a name from outside may contain.

    Raises UserError when standard output cannot be written; if its reader has ended (`| head`), the rest is not printed.
    """
    try:
        print(printable_lines(text), flush=True)
    except OSError as error:
        # Else Python would write again when the process ends, and show a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            advice = "the result is in the cache: free some space there, or print elsewhere, and give the same command again"
            raise UserError(f"standard output: cannot be written: {error.strerror}; {advice}") from error
