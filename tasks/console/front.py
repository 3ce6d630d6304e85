"""What `rcnn` does with stages: runs one, lists them all."""

from collections.abc import Iterator, Sequence

from luigi.cmdline import luigi_run

import tasks
from tasks.console import command_line


def run_stage(stage: str, command: str, words: Sequence[str]) -> int:
    """Runs the stage as `luigi --module tasks STAGE` does. Messages name `command`, which the user gave."""
    command_line.set_command(command)
    try:
        luigi_run(["--module", "tasks", stage, *words])
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        return end.code or 0
    return 0


def stage_lines() -> Iterator[str]:
    """One line per stage: its name and the first line of its description."""
    width = max(map(len, tasks.__all__))
    for name in tasks.__all__:
        yield f"{name:<{width}}  {getattr(tasks, name).__doc__.partition(chr(10))[0]}"
