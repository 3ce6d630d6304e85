"""Each training whose batches have parts, on several ranks: the weights and losses of one process, to the bit."""

import functools

import numpy as np
import pytest
import torch

from pipeline.datasets.records import Split
from pipeline.networks import parts
from pipeline.networks.backbones import make_backbone
from pipeline.networks.ranks import ALONE
from pipeline.networks.training import Schedule, TrainingRun
from pipeline.rcnn import finetune, windows
from tests.pipeline.fast_rcnn import test_training as fast_runs
from tests.pipeline.faster_rcnn import joint_runs, rpn_runs
from tests.pipeline.rank_runs import on_ranks

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGES, STEPS = 3, 2


def fast_rcnn(images, ranks):
    model, losses = fast_runs.fit(images, STEPS, sampling={"images": IMAGES, "regions": 33}, light=True, ranks=ranks)
    return [model], losses


def fast_rcnn_with_hard_examples(images, ranks):
    model, losses = fast_runs.fit(images, STEPS, sampling={"images": IMAGES, "regions": 33, "hard": True}, ranks=ranks)
    return [model], losses


def rpn(images, ranks):
    backbone = rpn_runs.make_tiny()
    model, losses = rpn_runs.fit(images, STEPS, backbone, images_a_step=IMAGES, ranks=ranks)
    return [backbone, model], losses


def joint(images, ranks):
    *models, losses = joint_runs.fit(images, STEPS, images_a_step=IMAGES, ranks=ranks)
    return models, losses


def fine_tuning(images, ranks):
    records, pixels = images
    generator = np.random.default_rng(0)
    proposals = [np.repeat(record.boxes, 9, axis=0) + generator.uniform(-9, 9, (18, 4)) for record in records]
    labelled = windows.label_windows(records, [boxes.astype(np.float32) for boxes in proposals].__getitem__)
    torch.manual_seed(0)
    backbone = make_backbone("tiny")
    run = TrainingRun(Schedule(STEPS, 0.01, 9), 1, torch.device("cpu"), ranks=ranks)
    model, losses = finetune.finetune(
        backbone, run, windows=labelled, split=Split("train", ("bright", "dark"), tuple(records)),
        read=lambda record: pixels[int(record.id)], mirror=True, padding=16, light=True,
    )
    return [model], losses


@pytest.fixture
def _three_parts(monkeypatch):
    monkeypatch.setattr(finetune, "FineTuneSampler", functools.partial(finetune.FineTuneSampler, batch_size=12))
    for module in finetune, windows:
        monkeypatch.setattr(module, "parts_of", functools.partial(parts.parts_of, pixels=4 * 64**2))


@pytest.mark.usefixtures("_three_parts")
@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("train", [
    fast_rcnn, rpn, joint, fine_tuning, pytest.param(fast_rcnn_with_hard_examples, marks=pytest.mark.exhaustive),
])
def test_any_number_of_ranks_makes_the_same_bytes(images, train, size):
    def work(ranks):
        models, losses = train(images, ranks)
        tensors = [value for model in models for value in model.state_dict().values()]
        return losses.tobytes(), [value.detach().numpy().tobytes() for value in tensors]

    alone = work(ALONE)
    assert all(result == alone for result in on_ranks(size, work))
