"""Joint trainings of a small network, for tests."""

from dataclasses import replace

import torch

from pipeline.fast_rcnn.network import FastRCNN
from pipeline.faster_rcnn.joint import SAMPLING, RegionChoice, train_jointly
from pipeline.faster_rcnn.rpn_training import AnchorLayout, AnchorSampler
from pipeline.networks.backbones import make_backbone
from pipeline.networks.map_inputs import MapInput
from pipeline.networks.ranks import ALONE
from pipeline.networks.training import Schedule, TrainingRun
from pipeline.networks.whole_images import Scaling, conv_map

CPU = torch.device("cpu")
HEIGHT, WIDTH = 60, 80
CLASSES = ("bright", "dark")
LAYOUT = AnchorLayout((1.0, 2.0, 3.0), (0.5, 1.0, 2.0))
SCALING = Scaling.of(HEIGHT, WIDTH, 90, 1000)


class Killed(Exception):
    """Stands for a killed process."""


def make_tiny(name="tiny"):
    torch.manual_seed(0)
    return make_backbone(name)


def fit(
    images, steps=4, backbone=None, checkpoint=None, log=None, maps=None, seed=3, precision="float32", scaling=SCALING,
    images_a_step=2, mirror=True, learning_rate=0.01, hard=None, weights=None,
    make_detector=lambda backbone: FastRCNN(backbone, len(CLASSES)), start=None, validation=None, ranks=ALONE, **rates,
):
    """Trains on `images` at 1.5 times their size; `maps` gives the cached map of a sample instead of its pixels."""
    records, pixels = images

    def inputs(samples):
        for sample in samples:
            yield MapInput(None, maps(sample), scaling) if maps else MapInput(pixels[sample.number], None, scaling)

    backbone = make_tiny() if backbone is None else backbone
    schedule = Schedule(steps, learning_rate, max(1, steps * 3 // 4))
    sampler = AnchorSampler(
        records, [scaling] * len(records), LAYOUT, mirror=mirror, images_a_step=images_a_step, seed=seed
    )
    return train_jointly(
        backbone,
        TrainingRun(schedule, seed, CPU, precision, checkpoint, log=log, start=start, validation=validation, ranks=ranks),
        make_detector=make_detector, sampler=sampler, layout=LAYOUT, inputs=inputs,
        choice=RegionChoice(replace(SAMPLING, regions=32), hard=hard, class_weights=weights), **rates,
    )


def make_maps(images, dtype, name="tiny"):
    backbone = make_tiny(name)

    def cached(sample):
        with torch.no_grad():
            values = conv_map(backbone, images[1][sample.number], SCALING, CPU, mirror=sample.mirrored)
        return values.permute(1, 2, 0).contiguous().numpy().astype(dtype)

    return cached


def same_weights(first, second):
    first, second = first.state_dict(), second.state_dict()
    assert list(first) == list(second)
    return all(torch.equal(first[name], second[name]) for name in first)
