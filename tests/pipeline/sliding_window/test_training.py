"""Training: what is learnt from, parts of a batch, and runs that are killed and go on."""

import itertools

import numpy as np
import pytest
import torch

from pipeline.networks import training as networks_training
from pipeline.networks.backbones import IMAGENET, make_backbone
from pipeline.networks.training import Schedule, TrainingRun
from pipeline.sliding_window import sampling, training
from pipeline.sliding_window.layout import layout_of
from pipeline.sliding_window.network import CELLS, WindowNetwork
from pipeline.sliding_window.sampling import LEFT_OUT, TileSampler
from pipeline.sliding_window.training import calibrate, choose, chosen_counts, step_losses, train_windows

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


class Killed(Exception):
    """Stands for a killed process."""


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """6 x 6 windows a tile instead of 18 x 18."""
    monkeypatch.setattr(sampling, "POSITIONS", 6)


def make_sampler(images, seed=3):
    return TileSampler(images[0], layout_of("tiny", CELLS), (1, 2), tiles=3, mirror=True, light=False, norm=IMAGENET, seed=seed)


def make_run(steps=3, checkpoint=None, log=None):
    return TrainingRun(Schedule(steps, 0.01, steps), 3, CPU, checkpoint=checkpoint, log=log)


def fit(images, **settings):
    torch.manual_seed(0)
    return train_windows(
        make_backbone("tiny"), make_run(**settings), sampler=make_sampler(images), num_classes=2,
        read=lambda record: images[1][int(record.id)], box_weight=0.5,
    )


class TestChoose:
    def test_all_kinds(self, monkeypatch):
        monkeypatch.setattr(training, "ON_OBJECTS", 2)
        monkeypatch.setattr(training, "AT_RANDOM", 1)
        monkeypatch.setattr(training, "OFFENDING", 2)
        labels = np.array([1, 0, 2, LEFT_OUT, 0, 3, 0, 0, 0])
        keys = np.array([0.9, 0.5, 0.1, 0.0, 0.6, 0.2, 0.05, 0.7, 0.8])
        offence = np.array([1, 0.4, 1, 1, 0.1, 1, 0.99, 0.3, 0.2])
        # Objects of the smallest keys; the background of the smallest key, 6; of the others the worst, 1 and 7.
        assert choose(labels, keys, offence).tolist() == [2, 5, 6, 1, 7]
        assert chosen_counts(labels) == (2, 3)

    def test_nothing_to_choose(self):
        nothing = np.full(4, LEFT_OUT)
        assert len(choose(nothing, np.zeros(4), np.zeros(4))) == sum(chosen_counts(nothing)) == 0


def test_parts_of_a_batch_give_the_losses_of_the_whole(images, monkeypatch):
    torch.manual_seed(0)
    model, batches = WindowNetwork(make_backbone("tiny"), 2).eval(), make_sampler(images)
    batch = next(batches.batches(lambda record: images[1][int(record.id)], 0))
    whole = [part() for part in step_losses(model, make_run(), batch, box_weight=0.5)]
    assert len(whole) == 1
    assert (whole[0] > 0).all()
    monkeypatch.setattr(training, "PIXELS_AT_A_TIME", 1)
    parts = [part() for part in step_losses(model, make_run(), batch, box_weight=0.5)]
    assert len(parts) == 3
    torch.testing.assert_close(sum(parts), whole[0])


def test_the_box_weight_counts(images):
    model = WindowNetwork(make_backbone("tiny"), 2).eval()
    batch = next(make_sampler(images).batches(lambda record: images[1][int(record.id)], 0))
    (none,), (one,), (two,) = (
        [part() for part in step_losses(model, make_run(), batch, box_weight=weight)] for weight in (0, 1, 2)
    )
    assert none[1] == 0
    torch.testing.assert_close(two[1], 2 * one[1])
    assert none[0] == one[0]


def test_calibration(images):
    model = WindowNetwork(make_backbone("tiny"), 2)
    batch = next(make_sampler(images).batches(lambda record: images[1][int(record.id)], 0))
    calibrate(model, batch, CPU)
    values = model.make_map(training.tiles_to_tensor(batch.pixels[:2], CPU))
    assert values.square().mean().sqrt().item() == pytest.approx(training.RMS, rel=1e-4)


def test_both_losses_fall_on_the_same_tiles(images, monkeypatch):
    batch = next(make_sampler(images).batches(lambda record: images[1][int(record.id)], 0))
    monkeypatch.setattr(TileSampler, "batches", lambda sampler, read, first: itertools.repeat(batch))
    _, losses = fit(images, steps=30)
    assert (losses[-5:].mean(axis=0) < 0.6 * losses[0]).all()


def test_a_killed_run_goes_on_to_the_same_bytes(images, tmp_path, monkeypatch):
    monkeypatch.setattr(networks_training, "CHECKPOINT_SECONDS", 0)
    undisturbed, losses = fit(images, steps=4)

    def kill(step, values):
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        fit(images, steps=4, checkpoint=tmp_path, log=kill)
    steps = []
    resumed, again = fit(images, steps=4, checkpoint=tmp_path, log=lambda step, values: steps.append(step))
    assert steps == [3, 4]
    np.testing.assert_array_equal(losses, again)
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])
