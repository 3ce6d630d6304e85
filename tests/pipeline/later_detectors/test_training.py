"""Training: the schedule, and that the losses fall."""

import numpy as np
import pytest
import torch

from pipeline.datasets.records import ImageRecord
from pipeline.later_detectors.network import Design, LaterDetector
from pipeline.later_detectors.sampling import DetectionBatches, Sources, Views
from pipeline.later_detectors.training import LARGEST_GRADIENT, limit_norm, train_detector
from pipeline.networks.backbones import IMAGENET
from pipeline.networks.continuing import Start
from pipeline.networks.training import Schedule, TrainingRun
from pipeline.networks.validation import Validation


def test_rate_rises_and_falls():
    schedule = Schedule(10, 1.0, 6, 4)
    assert [schedule.rate(step) for step in (0, 1, 3, 5)] == [0.25, 0.5, 1, 1]
    assert schedule.rate(6) == pytest.approx(0.1)
    assert Schedule(10, 1.0, 6).rate(0) == 1


def test_long_gradients_are_shortened():
    long, short = torch.full((4,), 100.0), torch.ones(4)
    assert float(limit_norm(long).norm()) == pytest.approx(LARGEST_GRADIENT)
    assert torch.equal(limit_norm(short), short)


def make_batches():
    """One image with one object, again and again."""
    box = np.array([[60, 60, 180, 180]], np.float32)
    record = ImageRecord("a", "a.png", "0", 300, 300, box, np.array([0]), np.array([False]))
    pixels = np.random.default_rng(0).integers(0, 90, (300, 300, 3), np.uint8)
    pixels[60:180, 60:180] += 140
    return DetectionBatches([record], Sources(lambda record: pixels), Views(False), images_a_step=1, seed=0, norm=IMAGENET)


def fit(steps, **options):
    torch.manual_seed(0)
    detector = LaterDetector(Design("ssd", "tiny", 300, 16), 2)
    run = TrainingRun(Schedule(steps, 0.002, 12, 2), 0, torch.device("cpu"), **options)
    return detector, train_detector(detector, run, make_batches())


def test_losses_fall():
    detector, losses = fit(12)
    assert losses.shape == (12, 2)
    assert losses[-3:].sum(axis=1).mean() < 0.7 * losses[0].sum()
    assert not any(parameter._backward_hooks for parameter in detector.parameters())


def test_goes_on_from_a_finished_training_and_validates_a_copy():
    copies = []
    validation = Validation(2, 0, lambda network: copies.append(network) or len(copies))
    detector, _ = fit(2, validation=validation)
    weights = {name: value.clone() for name, value in detector.state_dict().items()}
    (copied,) = copies
    assert copied is not detector
    assert all(torch.equal(value, weights[name]) for name, value in copied.state_dict().items())
    start = Start(2, {"network": weights}, "Train/abc")
    assert all(torch.equal(value, weights[name]) for name, value in fit(2, start=start)[0].state_dict().items())
    _, losses = fit(3, start=start)
    assert (losses.sum(axis=1) > 0).tolist() == [False, False, True]
