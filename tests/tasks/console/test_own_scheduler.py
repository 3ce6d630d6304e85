"""The scheduler of a command by itself: it gives what Luigi's own gives, and counts only when there is nothing to give."""

import random

import luigi.scheduler
import pytest
from luigi.scheduler import DONE, FAILED, PENDING

from tasks.console.cluster import Factory
from tasks.console.own_scheduler import OwnScheduler

HERE = {"worker": "here"}


def given_by(scheduler, failing: frozenset) -> tuple[list[str], dict]:
    """The tasks of a random graph in the order in which `scheduler` gives them, and its last answer."""
    draw = random.Random(0)
    for number in range(40):
        needed = [f"t{earlier}" for earlier in range(number) if draw.random() < 0.1]
        scheduler.add_task(**HERE, task_id=f"t{number}", deps=needed, priority=draw.randrange(3))
    running: list[str] = []
    order: list[str] = []
    while True:
        work = scheduler.get_work(**HERE, host="host", current_tasks=list(running))
        if work["task_id"]:
            order.append(work["task_id"])
            running.append(work["task_id"])
        elif not running:
            return order, work
        if len(running) == 3 or not work["task_id"]:
            ended = running.pop(0)
            scheduler.add_task(**HERE, task_id=ended, status=FAILED if ended in failing else DONE)


@pytest.mark.parametrize("failing", [frozenset(), frozenset({"t3", "t8"})])
def test_gives_what_luigis_scheduler_gives(failing):
    theirs, their_last = given_by(luigi.scheduler.Scheduler(retry_count=1), failing)
    ours, last = given_by(OwnScheduler(retry_count=1), failing)
    assert ours == theirs
    assert last == their_last
    assert len(ours) == 40 or failing


def test_counts_only_when_it_has_nothing_to_give(monkeypatch):
    counts, count = [], luigi.scheduler.Scheduler.count_pending
    monkeypatch.setattr(luigi.scheduler.Scheduler, "count_pending", lambda *args: counts.append(1) or count(*args))
    scheduler = Factory().create_local_scheduler()
    for task in "a", "b":
        scheduler.add_task(**HERE, task_id=task, status=PENDING)
    answers = [scheduler.get_work(**HERE) for _ in range(3)]
    assert [answer["task_id"] for answer in answers] == ["a", "b", None]
    assert answers[-1]["running_tasks"], "two are running"
    assert len(counts) == 1
