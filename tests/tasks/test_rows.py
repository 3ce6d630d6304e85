"""The files of rows in `experiments/`: each can be given with its backbone, and names what the papers' tables have."""

from pathlib import Path

import pytest

from tasks.evaluation.published import published_part
from tasks.sweep.plan import read_rows

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
FILES = {path.stem: path for path in FOLDER.glob("*.rows")}
PAPERS = "--dataset voc2007 --train-split trainval --weights imagenet"
OF_PAPER = {"rcnn-table2": f"{PAPERS} --backbone alexnet", "fast-rcnn-vgg16": f"{PAPERS} --backbone vgg16"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_row_is_refused(name, task_of):
    plan = task_of(f"luigi --module tasks Sweep --rows {FILES[name]} --vary seed=0,1 {OF_PAPER.get(name, '')}").plan
    assert len(plan.rows) >= 4
    assert plan.rows[0].published_difference is None


@pytest.mark.parametrize("name", sorted(OF_PAPER))
def test_differences_are_those_of_the_published_figures(name, task_of):
    sweep = task_of(f"luigi --module tasks Sweep --rows {FILES[name]} {OF_PAPER[name]}")
    figures = {}
    for row in sweep.plan.rows:
        (task,) = sweep.evaluations(row, (0,))
        figures[row.name] = published_part(task.chain, task, "voc2007")
    baseline = figures[sweep.plan.rows[0].name]
    compared = [row.name for row in sweep.plan.rows if figures[row.name] and row.published_difference is not None]
    assert len(compared) >= 2
    for row in read_rows(str(FILES[name])):
        if row.name in compared:
            assert round(figures[row.name] - baseline, 1) == row.published_difference, row.name
