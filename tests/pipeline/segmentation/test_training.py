"""Training: it learns, keeps frozen what is to be kept, sums or means, and a killed run goes on to the same bytes."""

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.networks import training
from pipeline.networks.backbones import make_backbone
from pipeline.networks.training import Schedule, TrainingRun
from pipeline.segmentation.layout import KINDS, UNPOOL, WAYS, Layout
from pipeline.segmentation.segment import ImageSegmenter
from pipeline.segmentation.training import SegmenterSettings, pixel_loss, rows_of_pixels, train_segmenter

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


class Killed(Exception):
    """Stands for a killed process."""


def fit(labelled, kind="fcn8s", steps=3, learning_rate=0.01, layout=None, run=None, **settings):
    records, pixels, maps = labelled
    torch.manual_seed(0)
    shared = TrainingRun(Schedule(steps, learning_rate, max(1, steps)), 5, CPU, **(run or {}))
    return train_segmenter(
        make_backbone("tiny"), Layout("tiny", 3, kind, **(layout or {})), shared, images=records,
        read=lambda record: pixels[int(record.id)], read_labels=lambda record: maps[int(record.id)],
        settings=SegmenterSettings(**settings),
    )


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def pixel_accuracy(model, labelled):
    segmenter = ImageSegmenter(model, CPU, "float32")
    _, pixels, maps = labelled
    right = [(segmenter.segment(image) == labels)[labels != 255] for image, labels in zip(pixels, maps)]
    return np.concatenate(right).mean()


class TestItLearns:
    @pytest.mark.parametrize(("kind", "steps", "layout"), [
        ("fcn8s", 60, {"learned": True}), ("patches", 40, {}),
        *(pytest.param(*values, marks=pytest.mark.exhaustive) for values in (("fcn8s", 60, {}), ("full-resolution", 60, {}))),
    ])
    def test_classes_of_pixels(self, labelled, kind, steps, layout):
        """Better than the background alone, by far."""
        background = np.mean([(labels == 0)[labels != 255].mean() for labels in labelled[2]])
        model, losses = fit(labelled, kind, steps, layout=layout)
        assert losses.shape == (steps, 1)
        assert losses[-10:].mean() < 0.5 * losses[:5].mean()
        assert pixel_accuracy(model, labelled) > 1 - 0.6 * (1 - background)

    @pytest.mark.parametrize("way", [
        UNPOOL, *(pytest.param(way, marks=pytest.mark.exhaustive) for way in WAYS if way != UNPOOL),
    ])
    def test_decoders(self, labelled, way):
        _, losses = fit(labelled, "unpooling", 60, layout={"upsampling": way}, learning_rate=0.008)
        assert losses[-10:].mean() < 0.75 * losses[:5].mean()

    def test_images_of_their_own_sizes(self, labelled):
        records, pixels, maps = labelled
        cut = ([each[: 40 + 3 * number] for number, each in enumerate(arrays)] for arrays in (pixels, maps))
        assert np.isfinite(fit((records, *cut))[1]).all()


class TestLoss:
    def test_of_pixels_by_hand(self):
        """Two labelled pixels with losses ln 2 and 0 (nearly), one void: the sum is ln 2, the mean half of it."""
        scores = torch.tensor([[[[0.0, 50, 3]], [[0.0, 0, 9]]]])
        labels = torch.tensor([[[0, 0, 255]]])
        assert pixel_loss(scores, labels, "sum").item() == pytest.approx(np.log(2))
        assert pixel_loss(scores, labels, "mean").item() == pytest.approx(np.log(2) / 2)

    def test_rows_of_pixels_have_the_same_loss(self):
        """As on a GPU."""
        scores, labels = torch.randn(1, 3, 5, 7), torch.randint(0, 3, (1, 5, 7))
        labels[0, 2] = 255
        expected = pixel_loss(scores, labels, "sum", torch.tensor([1.0, 2, 3]))
        torch.testing.assert_close(pixel_loss(*rows_of_pixels(scores, labels), "sum", torch.tensor([1.0, 2, 3])), expected)

    def test_weights_multiply_classes(self):
        scores, labels = torch.zeros(1, 2, 1, 3), torch.tensor([[[0, 1, 1]]])
        loss = pixel_loss(scores, labels, "mean", torch.tensor([3.0, 0.5]))
        assert loss.item() == pytest.approx(np.log(2) * (3 + 0.5 + 0.5) / 3)

    @pytest.mark.parametrize("loss", ["sum", "mean"])
    def test_void_alone_is_0(self, loss):
        scores = torch.randn(1, 2, 3, 3, requires_grad=True)
        value = pixel_loss(scores, torch.full((1, 3, 3), 255), loss)
        value.backward()
        assert value.item() == 0
        assert not scores.grad.any()

    def test_a_sum_at_a_rate_is_a_mean_at_that_rate_times_the_pixels(self, labelled):
        """All images have equally many labelled pixels here. One step alone, since weight decay depends on the rate."""
        pixels = int((labelled[2][0] != 255).sum())
        summed = fit(labelled, steps=1, learning_rate=0.01 / pixels, loss="sum")[0]
        mean = fit(labelled, steps=1, learning_rate=0.01)[0]
        for (name, value), expected in zip(weights(summed).items(), weights(mean).values()):
            if "scores" in name:
                torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-3)

    def test_momentum_is_a_setting(self, labelled):
        """After two steps at one gradient's scale the heavier momentum has moved farther."""
        moved = [fit(labelled, steps=4, learning_rate=1e-4, momentum=momentum)[0].method.layers.scores["32"].weight.norm()
                 for momentum in (0.0, 0.9)]
        assert moved[1] > 1.3 * moved[0]


class TestWhatIsTrained:
    def changed(self, labelled, kind="fcn8s", **settings):
        torch.manual_seed(0)
        before, after = make_backbone("tiny").state_dict(), fit(labelled, kind, **settings)[0].backbone.state_dict()
        return {name for name in before if not torch.equal(before[name], after[name])}

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_last_layers_alone(self, labelled, kind):
        assert not self.changed(labelled, kind, trained="last", patches=4)

    def test_all_but_the_frozen_layers(self, labelled):
        changed = self.changed(labelled)
        assert {"trunk.3.weight", "trunk.11.weight"} <= changed
        assert not {"trunk.0.weight", "trunk.0.bias"} & changed

    def test_cached_maps_change_nothing(self, labelled):
        """As many as fit are kept; whatever the memory, the same bytes come out."""
        kept, forgotten, few = (
            weights(fit(labelled, steps=14, trained="last", map_megabytes=size)[0]) for size in (64, 0, 0.5)
        )
        assert same(kept, forgotten)
        assert same(kept, few)

    def test_fixed_upsampling_has_no_weights_and_learned_moves(self, labelled):
        assert not [name for name, _ in fit(labelled)[0].named_parameters() if "upsamplings" in name]
        model = fit(labelled, layout={"learned": True}, steps=4)[0]
        kernel = model.method.layers.upsamplings["8-1"].weight
        assert kernel.detach().std(0).max() > 0

    def test_new_layers_learn_faster_by_their_rate(self, labelled):
        moved = [fit(labelled, steps=1, learning_rate=1e-4, **settings)[0].method.layers.scores["32"].weight.norm().item()
                 for settings in ({}, {"rate": 5.0})]
        assert moved[1] / moved[0] == pytest.approx(5, rel=0.02)

    def test_a_stage_begins_from_the_one_before(self, labelled):
        first = weights(fit(labelled, "fcn32s")[0])
        begun = fit(labelled, "fcn16s", steps=0, first=first)[0]
        assert torch.equal(begun.method.layers.scores["32"].weight, first["method.layers.scores.32.weight"])
        assert not begun.method.layers.scores["16"].weight.any()

    def test_wrong_settings_are_named(self):
        with pytest.raises(PipelineError, match="'head' is none of all, last"):
            SegmenterSettings(trained="head")


class TestSameBytes:
    @pytest.mark.parametrize(("kind", "settings", "layout"), [
        ("fcn8s", {}, {}), ("fcn8s", {"light": True, "images_a_step": 2}, {"learned": True}), ("patches", {"patches": 8}, {}),
        ("unpooling", {}, {"upsampling": "unpool"}), ("fcn16s", {"trained": "last", "momentum": 0.99}, {}),
    ])
    def test_a_killed_run_goes_on_to_them(self, labelled, tmp_path, monkeypatch, kind, settings, layout):
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
        expected, losses = fit(labelled, kind, 5, layout=layout, **settings)

        def kill(step, values):
            if step == 3:
                raise Killed

        with pytest.raises(Killed):
            fit(labelled, kind, 5, layout=layout, run={"checkpoint": tmp_path, "log": kill}, **settings)
        resumed, again = fit(labelled, kind, 5, layout=layout, run={"checkpoint": tmp_path}, **settings)
        assert same(weights(expected), weights(resumed))
        assert np.array_equal(losses, again)

    def test_bfloat16(self, labelled):
        first, losses = fit(labelled, steps=5, run={"precision": "bfloat16"})
        second, _ = fit(labelled, steps=5, run={"precision": "bfloat16"})
        assert same(weights(first), weights(second))
        assert np.isfinite(losses).all()


def test_an_image_of_void_alone_and_one_of_a_single_pixel(labelled):
    records, pixels, maps = labelled
    maps = [np.full_like(maps[0], 255), *maps[1:]]
    single = [image[:1, :1] for image in pixels]
    for kind in KINDS:
        assert np.isfinite(fit((records, pixels, maps), kind, 12, patches=4)[1]).all()
        assert np.isfinite(fit((records, single, [each[1:2, :1] for each in maps]), kind, 2, patches=4)[1]).all()
