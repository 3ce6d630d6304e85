"""Training on a toy set, red and green squares on grey: it learns, repeats to the byte, and resumes."""

import functools

import numpy as np
import pytest
import torch

from pipeline.datasets.records import Split
from pipeline.errors import PipelineError
from pipeline.networks import training
from pipeline.networks.backbones import IMAGENET, make_backbone
from pipeline.networks.training import Schedule, TrainingRun
from pipeline.rcnn import finetune as module
from pipeline.rcnn.crop_memory import crops_to_tensor
from pipeline.rcnn.finetune import finetune, pretrain
from pipeline.rcnn.warp import crop_padding, warp
from pipeline.rcnn.windows import label_windows

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
PADDING = 16
COLOURS = np.uint8([[200, 40, 40], [40, 180, 40]])


class Killed(Exception):
    """Stands for a killed process."""


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    for name in ("FineTuneSampler", "JitteredObjectSampler"):
        monkeypatch.setattr(module, name, functools.partial(getattr(module, name), batch_size=16))


@pytest.fixture
def toy(make_record):
    """Split, pixels by id, and windows: one square an image, proposals around it and elsewhere."""
    generator = np.random.default_rng(0)
    records, pixels, proposals = [], {}, []
    for number in range(8):
        image = generator.integers(110, 140, (96, 96, 3), np.uint8)
        x, y = generator.integers(10, 46, 2)
        image[y : y + 40, x : x + 40] = COLOURS[number % 2]
        record = make_record(f"image {number}", [[x, y, x + 40, y + 40]], [number % 2], 96, 96)
        near = record.boxes + generator.uniform(-4, 4, (4, 4))
        corner = generator.uniform(0, 70, (12, 2))
        proposals.append(np.concatenate([near, np.concatenate([corner, corner + 20], axis=1)]).astype(np.float32))
        records.append(record)
        pixels[record.id] = image
    return Split("train", ("red", "green"), tuple(records)), pixels, label_windows(records, proposals.__getitem__)


def run_finetune(
    toy, iterations=6, checkpoint=None, progress=training.silently, seed=1, mirror=True, precision="float32", weights=None
):
    split, pixels, windows = toy
    torch.manual_seed(0)
    backbone = make_backbone("tiny")
    torch.seed()  # what torch's generator was left with must not matter
    run = TrainingRun(Schedule(iterations, 0.002, 100), seed, CPU, precision, checkpoint, progress)
    return finetune(backbone, run, windows=windows, class_weights=weights, **settings_of(split, pixels, mirror))


def test_weights_of_classes_multiply_the_loss(toy):
    plain, weighted = run_finetune(toy, 1)[1], run_finetune(toy, 1, weights=np.full(3, 3, np.float32))[1]
    np.testing.assert_allclose(weighted, 3 * plain, rtol=1e-5)


def settings_of(split, pixels, mirror=True):
    return {"split": split, "read": lambda record: pixels[record.id], "mirror": mirror, "padding": PADDING}


def scores_of(model, toy, windows):
    _, pixels, _ = toy
    crops = np.zeros((len(windows), 64, 64, 3), np.float32)
    for row, (image, box) in enumerate(zip(windows.image, windows.boxes, strict=True)):
        crop, context = crops[row : row + 1], crop_padding(PADDING, 64)
        warp(pixels[f"image {image}"], box[None], crop, IMAGENET.mean, IMAGENET.std, padding=context)
    with torch.inference_mode():
        return model(crops_to_tensor(crops, CPU, torch.float32)).numpy()


def bytes_of(model):
    return {name: value.contiguous().numpy().tobytes() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.exhaustive)])
def test_tells_both_classes_and_the_background_apart(toy, precision):
    model, losses = run_finetune(toy, 100, precision=precision)
    assert losses[:3].mean() > 3 * losses[-10:].mean()
    assert not model.training
    assert next(model.parameters()).dtype == torch.float32
    windows = toy[2]
    scores = scores_of(model, toy, windows)
    assert scores.shape == (len(windows), 3)
    objects = windows.labels > 0
    assert (scores.argmax(axis=1)[objects] == windows.labels[objects]).all()
    assert (scores.argmax(axis=1)[~objects] == 0).mean() > 0.85


def test_trains_the_backbone_that_was_handed_in(toy):
    split, pixels, windows = toy
    torch.manual_seed(0)
    backbone = make_backbone("tiny")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    run = TrainingRun(Schedule(1, 0.01, 1), 1, CPU)
    model, _ = finetune(backbone, run, windows=windows, **settings_of(split, pixels))
    assert model.backbone is backbone
    assert all(not torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_pretraining_tells_the_classes_apart_without_background(toy):
    split, pixels, windows = toy
    torch.manual_seed(0)
    run = TrainingRun(Schedule(30, 0.005, 100), 1, CPU)
    model, losses = pretrain(make_backbone("tiny"), run, **settings_of(split, pixels))
    assert model.scores.out_features == 2
    assert losses[:3].mean() > 3 * losses[-5:].mean()
    objects = windows.take(np.flatnonzero(windows.labels > 0))
    assert (scores_of(model, toy, objects).argmax(axis=1) == objects.labels - 1).all()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(toy):
    (first, losses), (second, losses_again), (another, _) = run_finetune(toy), run_finetune(toy), run_finetune(toy, seed=2)
    assert bytes_of(first) == bytes_of(second)
    assert losses.tobytes() == losses_again.tobytes()
    assert bytes_of(first) != bytes_of(another)


def test_mirroring_changes_the_batches(toy):
    assert run_finetune(toy, 2)[1].tobytes() != run_finetune(toy, 2, mirror=False)[1].tobytes()


def test_a_killed_run_goes_on_to_the_same_bytes(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)

    def killed_after_three(items, total, about):
        for number, item in enumerate(items):
            if number == 3:
                raise Killed
            yield item

    with pytest.raises(Killed):
        run_finetune(toy, checkpoint=tmp_path, progress=killed_after_three)
    left = []
    model, losses = run_finetune(toy, checkpoint=tmp_path, progress=lambda items, total, about: left.append(total) or iter(items))
    undisturbed, all_losses = run_finetune(toy)
    assert left == [3]
    assert bytes_of(model) == bytes_of(undisturbed)
    assert losses.tobytes() == all_losses.tobytes()


def test_the_classifier_learns_ten_times_as_fast_in_finetuning_alone(toy, monkeypatch):
    factors = []

    def no_training(model, run, groups, **others):
        factors.append([(group.factor, group.weight_decay, len(group.parameters)) for group in groups])
        return np.zeros((run.schedule.iterations, 1), np.float32)

    monkeypatch.setattr(module, "train", no_training)
    run_finetune(toy)
    split, pixels, _ = toy
    pretrain(make_backbone("tiny"), TrainingRun(Schedule(1, 0.1, 1), 1, CPU), **settings_of(split, pixels))
    assert factors[0] == [(1, 0.0005, 6), (2, 0, 6), (10, 0.0005, 1), (20, 0, 1)]
    assert factors[1] == [(1, 0.0005, 6), (2, 0, 6), (1, 0.0005, 1), (2, 0, 1)]


def test_an_error_while_reading_an_image_is_raised(toy):
    split, _, windows = toy

    def read(record):
        raise PipelineError(f"{record.path}: cannot be read")

    run = TrainingRun(Schedule(3, 0.1, 1), 1, CPU)
    with pytest.raises(PipelineError, match=r"image 0\.png: cannot be read"):
        finetune(make_backbone("tiny"), run, windows=windows, split=split, read=read, mirror=True, padding=PADDING)
