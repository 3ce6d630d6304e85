"""Checkpoints: what is saved comes back, and another network's is not resumed from."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.networks import checkpoints
from pipeline.networks.checkpoints import resume, save_checkpoint
from pipeline.networks.sgd import SGD, parameter_groups

LOSSES = np.float32([[3.0], [2.5]])


def make(width=4):
    torch.manual_seed(0)
    model = nn.Linear(3, width)
    return model, SGD(parameter_groups(model))


@pytest.fixture
def saved(tmp_path):
    """A checkpoint after two steps, and its model and optimizer."""
    model, optimizer = make()
    for _ in range(2):
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step(0.1)
    save_checkpoint(tmp_path, model, optimizer, LOSSES)
    return tmp_path, model, optimizer


def test_model_velocities_and_losses_come_back(saved):
    folder, model, optimizer = saved
    (other_model, other_optimizer), losses = make(), np.zeros((5, 1), np.float32)
    assert resume(folder, other_model, other_optimizer, losses) == 2
    assert torch.equal(other_model.weight, model.weight)
    assert all(torch.equal(*pair) for pair in zip(other_optimizer.velocities, optimizer.velocities, strict=True))
    assert not any(value.requires_grad for value in other_optimizer.velocities)
    assert losses[:, 0].tolist() == [3.0, 2.5, 0, 0, 0]


def test_the_names_in_the_file_stay_those_of_older_caches(saved):
    from safetensors.torch import load_file

    assert sorted(load_file(saved[0] / "checkpoint.safetensors")) == [
        "losses", "model.bias", "model.weight", "momentum.0", "momentum.1",
    ]


def test_another_versions_network_is_told_of_and_left_as_it_is(saved, caplog, monkeypatch):
    monkeypatch.setattr(checkpoints.logger, "propagate", True)
    model, optimizer = make(width=5)
    before = model.weight.clone()
    assert resume(saved[0], model, optimizer, np.zeros((5, 1), np.float32)) == 0
    assert torch.equal(model.weight, before)
    assert "of another version of the network; training starts anew" in caplog.text


def test_without_a_checkpoint_there_is_nothing_to_do(tmp_path):
    model, optimizer = make()
    assert resume(tmp_path, model, optimizer, np.zeros((5, 1), np.float32)) == 0


def test_a_parameter_that_never_had_a_gradient_has_no_velocity(tmp_path):
    model, optimizer = make()
    model.weight.sum().backward()
    optimizer.step(0.1)
    save_checkpoint(tmp_path, model, optimizer, LOSSES[:1])
    model, optimizer = make()
    assert resume(tmp_path, model, optimizer, np.zeros((5, 1), np.float32)) == 1
    assert optimizer.velocities[1] is None
