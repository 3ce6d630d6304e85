"""What tests of training a region proposal network share: a small network, images, a short training."""


import torch

from pipeline.faster_rcnn.rpn_training import (
    AnchorLayout,
    AnchorSampler,
    train_rpn,
)
from pipeline.networks.backbones import make_backbone
from pipeline.networks.map_inputs import MapInput
from pipeline.networks.ranks import ALONE
from pipeline.networks.training import Schedule, TrainingRun
from pipeline.networks.whole_images import Scaling, conv_map

CPU = torch.device("cpu")
HEIGHT, WIDTH = 60, 80
LAYOUT = AnchorLayout((1.0, 2.0, 3.0), (0.5, 1.0, 2.0))  # 12 to 69 pixels
SCALING = Scaling.of(HEIGHT, WIDTH, 90, 1000)


class Killed(Exception):
    """Stands for a killed process."""


def make_tiny(seed=0, name="tiny"):
    torch.manual_seed(seed)
    return make_backbone(name)


def make_sampler(records, scaling=SCALING, mirror=True, images_a_step=2, seed=3, layout=LAYOUT):
    return AnchorSampler(records, [scaling] * len(records), layout, mirror=mirror, images_a_step=images_a_step, seed=seed)


def fit(
    images, steps=4, backbone=None, checkpoint=None, log=None, maps=None, seed=3, precision="float32", images_a_step=2,
    ranks=ALONE, **settings,
):
    """Trains on `images` at 1.5 times their size; `maps` gives the cached map of a sample instead of its pixels."""
    records, pixels = images

    def inputs(samples):
        for sample in samples:
            yield MapInput(None, maps(sample), SCALING) if maps else MapInput(pixels[sample.number], None, SCALING)

    backbone = make_tiny() if backbone is None else backbone
    schedule = Schedule(steps, 0.01, max(1, steps * 3 // 4))
    sampler = make_sampler(records, seed=seed, images_a_step=images_a_step)
    run = TrainingRun(schedule, seed, CPU, precision, checkpoint, log=log, ranks=ranks)
    return train_rpn(backbone, run, sampler=sampler, layout=LAYOUT, inputs=inputs, **settings)


def same_weights(first, second):
    first, second = first.state_dict(), second.state_dict()
    assert list(first) == list(second)
    return all(torch.equal(first[name], second[name]) for name in first)


def make_maps(images, dtype, name="tiny"):
    backbone = make_tiny(name=name)

    def cached(sample):
        with torch.no_grad():
            values = conv_map(backbone, images[1][sample.number], SCALING, CPU, mirror=sample.mirrored)
        return values.permute(1, 2, 0).contiguous().numpy().astype(dtype)

    return cached
