"""After a command that could not finish its stage: what there is of the result, as the rows of a sweep that did not fail."""

import functools

import luigi.interface

from tasks.engine.printing import ShowResult


def set_up() -> None:
    """Lets a command show an unfinished result at its end. An interrupted command shows none.

    NOTE: Luigi has no public way to do this. tests/tasks/console/test_luigi.py lists the private name.
    """
    run = luigi.interface._schedule_and_run
    if hasattr(run, "original"):
        return

    @functools.wraps(run)
    def run_and_show(tasks, *args, **kwargs):
        result = run(tasks, *args, **kwargs)
        if not result.worker._assistant:  # an assistant shows nothing
            for task in tasks:
                if isinstance(task, ShowResult) and not _is_finished(task.of):
                    task.of.show_unfinished()
        return result

    run_and_show.original = run
    luigi.interface._schedule_and_run = run_and_show


def _is_finished(stage) -> bool:
    try:
        return stage.complete()
    except Exception:  # wrong settings or a bug, which Luigi's worker has shown: there is no result to show
        return True
