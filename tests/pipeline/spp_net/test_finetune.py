"""Fine-tuning of fully connected layers on a toy pyramid: what is trained, a step by hand, learning, and resuming."""

import numpy as np
import pytest
import torch

from pipeline.networks import training
from pipeline.networks.backbones import make_backbone
from pipeline.networks.training import Schedule, TrainingRun
from pipeline.spp_net.finetune import finetune_layers
from pipeline.spp_net.pyramid_layers import put_on_pyramid

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
LEVELS = (1, 2)
VALUES = 640


class Killed(Exception):
    """Stands for a killed process."""


def batches(first):
    """Rows whose first values tell their label, without end; each step's batch is drawn alone."""
    step = first
    while True:
        generator = np.random.default_rng(step)
        labels = np.repeat([1, 2, 0], [4, 4, 8])
        rows = generator.uniform(0, 0.5, (16, VALUES))
        rows[labels == 1, :200] += 1
        rows[labels == 2, 200:400] += 1
        yield rows.astype(np.float16), labels
        step += 1


def make(levels=LEVELS):
    torch.manual_seed(0)
    backbone = make_backbone("tiny")
    put_on_pyramid(backbone, levels)
    return backbone


def run(iterations=6, checkpoint=None, progress=training.silently, seed=1, precision="float32", rate=0.005, weights=None):
    settings = TrainingRun(Schedule(iterations, rate, 100), seed, CPU, precision, checkpoint, progress)
    return finetune_layers(make(), settings, num_classes=2, batches=batches, class_weights=weights)


def test_weights_of_classes_multiply_the_loss():
    """Of 4, 4 and 8 regions a batch; all classes start with nearly the same loss."""
    plain, tripled, first = (run(1, weights=weights)[1].item() for weights in (None, np.full(3, 3, "f4"), np.float32([0, 4, 0])))
    assert tripled == pytest.approx(3 * plain)
    assert first == pytest.approx(plain, rel=0.1)


def bytes_of(model):
    return {name: value.contiguous().numpy().tobytes() for name, value in model.state_dict().items()}


def test_trains_the_fully_connected_layers_alone():
    model, _ = run()
    before = make().state_dict()
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("trunk."), name


def test_levels_that_start_with_zeros_learn():
    model, _ = run()
    assert model.backbone.fc["fc6"].weight.detach().abs().sum(dim=0).min() > 0


def test_a_step_by_hand(monkeypatch):
    """One step without dropout: softmax, ReLU and two layers, their gradients written out; biases learn twice as fast."""
    monkeypatch.setattr("pipeline.networks.backbones.DROPOUT", 0.0)
    start, _ = run(0)
    model, losses = run(1, rate=0.01)
    rows, labels = next(batches(0))
    x = rows.astype(np.float64)
    w6, b6, w8, b8 = (value.detach().double().numpy() for value in (
        start.backbone.fc["fc6"].weight, start.backbone.fc["fc6"].bias, start.scores.weight, start.scores.bias
    ))
    before_relu = x @ w6.T + b6
    hidden = np.maximum(before_relu, 0)
    scores = hidden @ w8.T + b8
    softmax = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert losses[0, 0] == pytest.approx(-np.log(softmax[np.arange(16), labels]).mean(), rel=1e-5)
    of_scores = (softmax - np.eye(3)[labels]) / 16
    of_hidden = of_scores @ w8 * (before_relu > 0)
    decay = 0.0005
    expected = {
        "backbone.fc.fc6.weight": w6 - 0.01 * (of_hidden.T @ x + decay * w6),
        "backbone.fc.fc6.bias": b6 - 0.02 * of_hidden.sum(0),
        "scores.weight": w8 - 0.01 * (of_scores.T @ hidden + decay * w8), "scores.bias": b8 - 0.02 * of_scores.sum(0),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(model.state_dict()[name].numpy(), values, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_learns(precision):
    model, losses = run(60, precision=precision)
    assert losses[:3].mean() > 3 * losses[-5:].mean()
    rows, labels = next(batches(1000))
    with torch.inference_mode():
        assert (model(torch.from_numpy(rows).float()).argmax(dim=1).numpy() == labels).mean() > 0.9


def test_no_steps_leave_the_layers_as_they_start():
    model, losses = run(0)
    assert losses.shape == (0, 1)
    assert bytes_of(model.backbone) == bytes_of(make())
    assert not model.training


@pytest.mark.parametrize("last", [1, 4])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch, last):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)

    def killed(steps, total, about):
        for number, step in enumerate(steps):
            if number == last:
                raise Killed
            yield step

    with pytest.raises(Killed):
        run(checkpoint=tmp_path, progress=killed)
    resumed, undisturbed = run(checkpoint=tmp_path), run()
    assert bytes_of(resumed[0]) == bytes_of(undisturbed[0])
    assert resumed[1].tobytes() == undisturbed[1].tobytes()
    assert bytes_of(undisturbed[0]) != bytes_of(run(seed=2)[0])
