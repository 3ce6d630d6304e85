"""What tests of the training loop share: a small network and a short training."""

import itertools

import numpy as np
import torch
from torch import nn

from pipeline.networks.sgd import parameter_groups
from pipeline.networks.training import Schedule, TrainingRun, train

STEPS = 12
SCHEDULE = Schedule(STEPS, 0.05, 5)


class Killed(Exception):
    """Stands for a killed process."""


def fit(model, schedule, batches, losses_of, groups=None, seed=0, names=(), images_a_step=0, **options):
    """`train` on the CPU; `options` are those of `TrainingRun`."""
    settings = {"groups": groups or parameter_groups(model), "names": names, "images_a_step": images_a_step}
    run = TrainingRun(schedule, seed, torch.device("cpu"), **options)
    return train(model, run, batches=batches, losses_of=losses_of, **settings)


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8 * 36, 4)).to(
        memory_format=torch.channels_last
    )


def batches_from(first):
    for step in itertools.count(first):
        generator = np.random.default_rng(step)
        crops, labels = generator.normal(size=(6, 3, 8, 8)).astype(np.float32), generator.integers(0, 4, 6)
        yield torch.from_numpy(crops), torch.from_numpy(labels)


def run(checkpoint=None, before_step=lambda step: None, seed=3, schedule=SCHEDULE, **options):
    """Trains a fresh model; `before_step` is told each step's number. Returns the model, losses and the steps taken."""
    model, taken = make_model(), []

    def numbered(first):
        return ((first + number, batch) for number, batch in enumerate(batches_from(first)))

    def losses_of(numbered_batch):
        step, (crops, labels) = numbered_batch
        before_step(step)
        taken.append(step)
        assert model.training
        return [lambda: nn.functional.cross_entropy(model(crops), labels)]

    losses = fit(model, schedule, numbered, losses_of, seed=seed, checkpoint=checkpoint, **options)
    return model, losses, taken


def killed_at(last):
    def before_step(step):
        if step == last:
            raise Killed

    return before_step


def bytes_of(model):
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
