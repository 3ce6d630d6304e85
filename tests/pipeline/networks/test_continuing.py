"""Trainings that go on from a finished one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.networks.continuing import Start
from pipeline.networks.training import Schedule, loss_table
from tests.pipeline.networks.training_runs import SCHEDULE, STEPS, Killed, bytes_of, killed_at, make_model, run

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = replace(SCHEDULE, iterations=7)


@pytest.fixture
def state(tmp_path):
    """The state that a training of 7 steps kept."""
    path = tmp_path / "state.safetensors"
    run(schedule=SHORT, keep=path)
    return path


def test_with_the_kept_state_it_ends_as_one_long_training(state):
    model, losses, _ = run()
    longer, longer_losses, taken = run(start=Start(7, {}, "Train/abc", state))
    assert taken == list(range(7, STEPS))
    assert bytes_of(longer) == bytes_of(model)
    assert longer_losses.tobytes() == losses.tobytes()


@pytest.mark.usefixtures("saves_every_step")
def test_killed_it_goes_on_from_its_own_checkpoint(state, tmp_path):
    start, folder = Start(7, {}, "Train/abc", state), tmp_path / "checkpoints"
    folder.mkdir()
    with pytest.raises(Killed):
        run(folder, killed_at(9), start=start)
    model, _, taken = run(folder, start=start)
    assert taken == [9, 10, 11]
    assert bytes_of(model) == bytes_of(run()[0])


def test_without_a_state_steps_count_on():
    assert run(start=Start(7, {}, "Train/abc"))[2] == list(range(7, STEPS))


def test_weights_of_a_part_are_loaded_or_refused_by_name():
    weights = {name: value + 1 for name, value in make_model().state_dict().items()}
    model = make_model()
    Start(7, {"network": weights}, "Train/abc").load("network", model)
    assert torch.equal(model[4].bias, weights["4.bias"])
    weights["4.bias"] = torch.zeros(5)
    with pytest.raises(PipelineError, match=r"Train/abc: not the weights of this network: 4.bias has shape \(5,\)"):
        Start(7, {"network": weights}, "Train/abc").load("network", model)


def test_the_curve_begins_where_it_went_on():
    table = loss_table(np.float32([[0], [0], [0.5]]), Schedule(3, 0.1, 2), first=2)
    assert table.splitlines() == ["step,learning_rate,loss", "3,0.01,0.5"]


@pytest.mark.parametrize(("start", "rates"), [(0.0, [0.25, 0.5, 0.75, 1, 1, 0.1]), (0.2, [0.4, 0.6, 0.8, 1, 1, 0.1])])
def test_the_rate_rises_in_equal_steps(start, rates):
    schedule = Schedule(6, 1.0, 5, 4, start)
    np.testing.assert_allclose([schedule.rate(step) for step in range(6)], rates)
