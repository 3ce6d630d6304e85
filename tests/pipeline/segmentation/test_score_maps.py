"""Scores of pixels from maps: the release's three forward passes, hand-made maps whose output must lie where the image's is."""

import numpy as np
import pytest
import torch

from pipeline.networks.backbones import make_backbone
from pipeline.segmentation.encoder import READINGS, map_coordinates
from pipeline.segmentation.fully_convolutional import FullyConvolutional
from pipeline.segmentation.layout import BACKBONES as BACKBONES_OF_LAYOUT
from pipeline.segmentation.layout import SKIPS, Layout
from pipeline.segmentation.score_maps import NORM, MapStandard, ScoreMaps

BACKBONES = ("tiny", "squeezenet1_0", "efficientnet_lite0")


@pytest.fixture(scope="module")
def vgg16():
    with torch.device("meta"):
        return make_backbone("vgg16")


def identity_layers(backbone, kind, num_classes, learned=False):
    """The layers of an FCN on maps that are scores already."""
    places = [map_coordinates(backbone, stride) for stride in SKIPS[kind]]
    count = len(places)
    layers = ScoreMaps(places, [num_classes] * count, num_classes, scales=[1.0] * count, learned=learned)
    for scores in layers.scores.values():
        scores.weight.data = torch.eye(num_classes)[..., None, None]
    return layers.double().eval()


class TestForwardPassesOfTheRelease:
    @pytest.mark.parametrize("kind", SKIPS)
    def test_fixed(self, oracle, vgg16, kind):
        values = oracle("fcn_forward.npz")
        maps = [torch.from_numpy(values[name])[None] for name in ("score_fr", "score_pool4", "score_pool3")][: len(SKIPS[kind])]
        size = tuple(values["image_size"].tolist())
        layers = identity_layers(vgg16, kind, 3)
        # Scores are computed in the layers' own precision, here float64.
        scores = layers.forward([values.double() for values in maps], size)
        np.testing.assert_allclose(scores.detach()[0].numpy(), values[kind], atol=1e-5)

    @pytest.mark.parametrize("kind", SKIPS)
    def test_learned_begin_as_fixed(self, vgg16, kind):
        torch.manual_seed(0)
        maps = [torch.randn(1, 3, *size).double() for size in ((2, 3), (16, 18), (32, 35))][: len(SKIPS[kind])]
        fixed, learned = (identity_layers(vgg16, kind, 3, learned)(maps, (53, 78)) for learned in (False, True))
        torch.testing.assert_close(fixed, learned, atol=1e-5, rtol=0)


class TestEveryPixelHasScores:
    """A map of ones at each stride gives every pixel a score above 0, in images of any size."""

    @pytest.mark.parametrize("name", [  # EfficientNet has so many layers that it takes ten times as long
        *(pytest.param(name, marks=pytest.mark.exhaustive) if name == "efficientnet_lite0" else name for name in BACKBONES),
        "alexnet", "vgg16",
    ])
    def test_of_any_size(self, name):
        with torch.device("meta"):
            backbone = make_backbone(name)
        method = FullyConvolutional(backbone, Layout(name, 1, "fcn8s"))
        layers = {kind: identity_layers(backbone, kind, 1) for kind in ("fcn32s", "fcn8s")}
        for side in (*range(1, 7), 15, 16, 17, 18, 31, 32, 33, 34, 47, 48, 49, 50, 63, 64, 65, 255, 256, 257):
            with torch.device("meta"):
                maps = method.encode(backbone, torch.zeros(1, 3, side, 33), False)
            ones = [torch.zeros(1, 1, *values.shape[2:], dtype=torch.float64) for values in maps]
            ones[0] += 1
            for kind, of_kind in layers.items():
                scores = of_kind(ones[: len(SKIPS[kind])], (side, 33))
                assert scores.shape == (1, 1, side, 33)
                assert scores.min() > 0, (kind, side)


class TestAlignment:
    """Each cell of a map says where its coordinates are; the pixels' scores must then say where the pixels are."""

    @pytest.mark.parametrize("name", [*BACKBONES, "alexnet", "vgg16"])
    @pytest.mark.parametrize("kind", SKIPS)
    def test_a_ramp_over_the_image_stays_one(self, name, kind):
        with torch.device("meta"):
            backbone = make_backbone(name)
        height, width = 203, 330
        layers = identity_layers(backbone, kind, 2)
        with torch.device("meta"):
            maps = FullyConvolutional(backbone, Layout(name, 2, kind)).encode(backbone, torch.zeros(1, 3, height, width), False)
        ramps = []
        for stride, values in zip(SKIPS[kind], maps):
            place = map_coordinates(backbone, stride)
            rows, columns = (place.stride * torch.arange(side, dtype=torch.float64) + place.offset for side in values.shape[2:])
            ramps.append(torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None])
        scores = layers(ramps, (height, width))[0]
        count = len(ramps)
        inside = slice(40, -40)  # at the edges there may be no second cell to interpolate with
        for channel, expected in enumerate(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")):
            mean = scores[channel, inside, inside] / count
            torch.testing.assert_close(mean, expected[inside, inside].double(), atol=1e-9, rtol=0)


class TestStandard:
    def test_mean_0_and_norm(self):
        torch.manual_seed(0)
        maps = [torch.randn(1, 100, 9, 7) * 38 + 5, torch.randn(1, 100, 4, 30) * 38 + 5]
        standard = MapStandard(100)
        standard.fit(maps)
        cells = torch.cat([standard(each).flatten(2) for each in maps], dim=2)[0]
        torch.testing.assert_close(cells.mean(1), torch.zeros(100), atol=1e-4, rtol=0)
        # Channels of one deviation keep half of NORM: see `fit`.
        assert cells.square().sum(0).mean().sqrt().item() == pytest.approx(NORM / 2, rel=0.03)

    def test_a_channel_that_never_fires_stays_finite(self):
        standard = MapStandard(2)
        standard.fit([torch.zeros(1, 2, 3, 3)])
        assert standard(torch.ones(1, 2, 1, 1)).isfinite().all()


class TestScales:
    def test_at_once_scales_the_skips_of_the_release(self, vgg16):
        layers = FullyConvolutional(vgg16, Layout("vgg16", 21, "fcn8s", at_once=True)).layers
        assert {name: standard.scale[0].item() for name, standard in layers.standards.items()} == pytest.approx(
            {"32": 1.0, "16": 0.01, "8": 0.0001}
        )

    def test_staged_ones_are_not_scaled(self, vgg16):
        layers = FullyConvolutional(vgg16, Layout("vgg16", 21, "fcn8s")).layers
        assert {standard.scale[0].item() for standard in layers.standards.values()} == {1.0}


def test_every_backbone_has_a_reading():
    assert set(READINGS) == set(BACKBONES_OF_LAYOUT)


def test_channels_are_those_of_the_maps():
    for name in (*BACKBONES, "alexnet", "vgg16"):
        with torch.device("meta"):
            backbone = make_backbone(name)
            maps = FullyConvolutional(backbone, Layout(name, 2, "fcn8s")).encode(backbone, torch.zeros(1, 3, 64, 64), False)
        channels = {stride: values.shape[1] for stride, values in zip((32, 16, 8), maps)}
        assert channels == READINGS[name].channels


def test_scores_are_zero_at_the_start():
    torch.manual_seed(0)
    for kind in SKIPS:
        backbone = make_backbone("tiny")
        layers = FullyConvolutional(backbone, Layout("tiny", 3, kind))
        scores = layers.decode(layers.encode(backbone, torch.randn(1, 3, 40, 50), False), (40, 50))
        assert not scores.any()
