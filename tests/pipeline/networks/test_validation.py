"""Validation in training: the best network is kept, training ends in time, and a killed run ends with the same bytes."""

from dataclasses import replace
from functools import cache

import pytest

from pipeline.networks.validation import Validation
from tests.pipeline.networks.training_runs import SCHEDULE, STEPS, Killed, bytes_of, killed_at, run

pytestmark = pytest.mark.usefixtures("one_thread")
SCORES = (0.3, 0.5, 0.5, 0.4, 0.1, 0.45)  # after 2, 4, ... 12 steps


class Scores:
    """Scores `SCORES` in turn; raises Killed instead of the score number `killed`."""

    def __init__(self, patience=0, killed=None, every=2):
        self.networks, self.told, self.killed = [], [], killed
        self.validation = Validation(every, patience, self.score, lambda *values: self.told.append(values))

    def score(self, network):
        assert not network.training
        number = len(self.validation.scores)
        if number == self.killed:
            raise Killed
        self.networks.append(bytes_of(network))
        return SCORES[number]


@cache
def after(steps):
    """The weights after so many steps of an undisturbed run without validation."""
    return bytes_of(run(schedule=replace(SCHEDULE, iterations=steps))[0])


def test_the_first_of_the_best_networks_is_kept():
    scores = Scores()
    model, losses, taken = run(validation=scores.validation)
    assert (scores.validation.best, len(losses), taken) == ((4, 0.5), STEPS, list(range(STEPS)))
    assert bytes_of(model) == after(4) == scores.networks[1]
    assert scores.networks[-1] == after(STEPS)  # validation changes nothing of the training
    assert scores.told == [(2 * n + 2, score, n < 2) for n, score in enumerate(SCORES)]
    assert scores.validation.table().splitlines()[:3] == ["step,score", "2,0.3", "4,0.5"]


@pytest.mark.parametrize(("patience", "steps"), [(2, 8), (4, 12)])
def test_ends_after_so_many_scores_without_a_gain(patience, steps):
    scores = Scores(patience)
    model, losses, taken = run(validation=scores.validation)
    assert len(losses) == len(taken) == steps
    assert bytes_of(model) == after(4)


def test_the_last_network_is_scored_too():
    scores = Scores(every=5)
    run(validation=scores.validation)
    assert [done for done, _ in scores.validation.scores] == [5, 10, 12]


@pytest.mark.parametrize(("killed", "step"), [(0, None), (3, None), (None, 5)])
def test_killed_and_resumed_ends_with_the_same_bytes(tmp_path, killed, step):
    """Killed while a network is scored, or in a step. Each score leaves a checkpoint."""
    whole, losses, _ = run(validation=Scores(2).validation)
    with pytest.raises(Killed):
        run(tmp_path, killed_at(step), validation=Scores(2, killed).validation)
    model, resumed_losses, taken = run(tmp_path, validation=Scores(2).validation)
    assert bytes_of(model) == bytes_of(whole)
    assert resumed_losses.tobytes() == losses.tobytes()
    assert taken[0] == (4 if step else 2 * killed)


def test_a_run_that_has_ended_is_not_gone_on_with(tmp_path):
    run(tmp_path, validation=Scores(1).validation)
    model, losses, taken = run(tmp_path, validation=Scores(1).validation)
    assert (taken, len(losses)) == ([], 6)
    assert bytes_of(model) == after(4)
