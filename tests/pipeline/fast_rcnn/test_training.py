"""Training Fast R-CNN: gradients down to the pixels, frozen layers, cached maps, and runs that are killed and go on."""

import copy

import numpy as np
import pytest
import torch

from pipeline.fast_rcnn.losses import fast_rcnn_loss
from pipeline.fast_rcnn.network import FastRCNN
from pipeline.fast_rcnn.sampling import RegionSampler, SamplingSettings
from pipeline.fast_rcnn.training import MapInput, freeze, train_fast_rcnn
from pipeline.networks import training
from pipeline.networks.backbones import make_backbone
from pipeline.networks.compute import mixed_precision
from pipeline.networks.training import Schedule, TrainingRun
from pipeline.networks.variants import CONVOLUTIONAL
from pipeline.networks.whole_images import Scaling, conv_map, rois_of

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
HEIGHT, WIDTH = 60, 80
CLASSES = ("bright", "dark")


class Killed(Exception):
    """Stands for a killed process."""


def make_sampler(records, **settings):
    rng = np.random.default_rng(7)
    moves = rng.normal(scale=5, size=(len(records), 30, 4))
    proposals = [np.repeat(record.boxes, 15, axis=0) + move for record, move in zip(records, moves, strict=True)]
    proposals = [np.hstack([np.minimum(boxes[:, :2], boxes[:, 2:] - 4), boxes[:, 2:]]).astype(np.float32) for boxes in proposals]
    settings = SamplingSettings(**{"regions": 32, **settings})
    return RegionSampler(records, CLASSES, proposals.__getitem__, 3, mirror=True, settings=settings)


def make_tiny(seed=0):
    torch.manual_seed(seed)
    return make_backbone("tiny")


def fit(
    images, steps=6, backbone=None, checkpoint=None, log=None, maps=None, seed=3, precision="float32", before_read=None,
    output_rate=1.0, light=False, sampling=None, lr_step=0, class_weights=None, **options,
):
    """Trains on `images` at 1.5 times their size; `maps` gives the cached map of a sample instead of its pixels."""
    records, pixels = images

    def inputs(samples):
        for count, sample in enumerate(samples):
            if before_read:
                before_read(count)
            scaling = Scaling.of(HEIGHT, WIDTH, 90, 1000)
            yield MapInput(None, maps(sample), scaling) if maps else MapInput(pixels[sample.number], None, scaling)

    backbone = make_tiny() if backbone is None else backbone
    schedule = Schedule(steps, 0.01, lr_step or max(1, steps * 3 // 4))
    run = TrainingRun(schedule, seed, CPU, precision, checkpoint, log=log, **options)
    return train_fast_rcnn(
        backbone, run, sampler=make_sampler(records, **(sampling or {})), inputs=inputs, output_rate=output_rate, light=light,
        class_weights=class_weights,
    )


@pytest.mark.parametrize("sampling", [{}, {"hard": True}])
def test_weights_of_classes_multiply_the_log_loss(images, sampling):
    weights = np.full(len(CLASSES) + 1, 3, np.float32)
    plain, weighted = (fit(images, 1, sampling=sampling, class_weights=given)[1] for given in (None, weights))
    np.testing.assert_allclose(weighted[:, 0], 3 * plain[:, 0], rtol=0.05)  # other regions may be the hardest


def same_weights(first, second):
    first, second = first.state_dict(), second.state_dict()
    assert list(first) == list(second)
    return all(torch.equal(first[name], second[name]) for name in first)


class TestGradient:
    def test_reaches_the_first_layer_as_finite_differences_say(self, images):
        """The loss moves with the first layer's weights, in random directions, as its gradient says."""
        records, pixels = images
        sample = make_sampler(records).draw(0)[0]
        scaling = Scaling.of(HEIGHT, WIDTH, 90, 1000)
        torch.manual_seed(1)
        model = FastRCNN(make_tiny(), len(CLASSES)).eval()
        torch.nn.init.normal_(model.scores.weight, std=0.1)
        torch.nn.init.normal_(model.deltas.weight, std=0.1)
        labels, targets = torch.from_numpy(sample.labels), torch.from_numpy(sample.targets)

        def loss():
            values = conv_map(model.backbone, pixels[sample.number], scaling, CPU, mirror=sample.mirrored)
            scores, deltas = model(model.pool(values, rois_of(sample.boxes, scaling)))
            return fast_rcnn_loss(scores, deltas, labels, targets).sum()

        loss().backward()
        for name in ("backbone.trunk.0.weight", "backbone.trunk.9.weight", "backbone.fc.fc6.weight", "deltas.weight"):
            weight = model.get_parameter(name)
            direction = weight.grad / weight.grad.norm()
            with torch.no_grad():
                kept = weight.clone()
                ends = []
                for sign in (1, -1):
                    weight.copy_(kept + sign * 1e-3 * direction)
                    ends.append(loss().item())
                weight.copy_(kept)
            assert (ends[0] - ends[1]) / 2e-3 == pytest.approx(weight.grad.norm().item(), rel=0.02), name


class TestFreeze:
    @pytest.mark.parametrize(("which", "frozen"), [("none", 0), ("first", 3), ("all", 4)])
    def test_layers_stay_bit_identical_or_change(self, images, which, frozen):
        backbone = make_tiny()
        backbone.frozen = 7  # as if three convolutions were frozen
        freeze(backbone, which)
        model, _ = fit(images, 2, backbone)
        before, after = make_tiny(), model.backbone
        same = [torch.equal(before.trunk[number].weight, after.trunk[number].weight) for number in (0, 3, 6, 9)]
        assert same == [number < frozen for number in range(4)]
        assert not torch.equal(before.fc["fc6"].weight, after.fc["fc6"].weight)

    @pytest.mark.parametrize(("name", "precision"), [
        ("efficientnet_lite0", "float32"), ("resnet18", "float32"), ("mobilenet_v3_large+align", "float32"),
        *(pytest.param(name, "bfloat16", marks=pytest.mark.exhaustive) for name in CONVOLUTIONAL[:3]),
        *(pytest.param(name, "float32", marks=pytest.mark.exhaustive) for name in ("resnet50+grid14", "resnet101+stride1+align")),
    ])
    def test_of_convolutions_for_regions_all_but_the_frozen_ones_change(self, images, name, precision):
        """Batch normalisation, as scales and offsets, keeps its bits."""
        torch.manual_seed(0)
        backbone = make_backbone(name)
        norms = [value for key, value in backbone.named_buffers() if key.endswith(("scale", "offset"))]
        for value in norms:
            value += 0.1 * torch.rand(value.shape)
        assert norms
        before = copy.deepcopy(backbone.state_dict())
        freeze(backbone, "first")
        model, losses = fit(images, 1, backbone, precision=precision)
        assert np.isfinite(losses).all()
        after = model.backbone.state_dict()
        assert after.keys() == before.keys()  # no layer was added
        same = {name for name in before if torch.equal(before[name], after[name])}
        frozen = {name for name in before if name.startswith(("trunk.0.", "trunk.1.", "trunk.2.", "trunk.3."))}
        assert same == frozen | {name for name in before if name.endswith(("scale", "offset"))}
        assert all(value.dtype == torch.float32 for value in after.values())

    @pytest.mark.parametrize(("name", "first"), [
        ("alexnet", "3"), ("vgg16", "10"), ("squeezenet1_0", "7"), ("efficientnet_lite0", "4"), ("tiny", "3"),
        ("mobilenet_v3_large", "4"), ("resnet18", "4"), ("resnet101", "4"),
    ])
    def test_the_first_layer_that_is_trained(self, name, first):
        """conv2 of CaffeNet, conv3_1 of VGG-16 (train.prototxt of rbgirshick/fast-rcnn)."""
        with torch.device("meta"):
            backbone = make_backbone(name)
        freeze(backbone, "first")
        assert next(name for name, value in backbone.trunk.named_parameters() if value.requires_grad).split(".")[0] == first


class TestCachedMaps:
    def make_maps(self, images, dtype):
        backbone, scaling = make_tiny(), Scaling.of(HEIGHT, WIDTH, 90, 1000)

        def cached(sample):
            with torch.no_grad():
                values = conv_map(backbone, images[1][sample.number], scaling, CPU, mirror=sample.mirrored)
            return values.permute(1, 2, 0).contiguous().numpy().astype(dtype)

        return cached

    def fit_frozen(self, images, maps=None):
        backbone = make_tiny()
        freeze(backbone, "all")
        return fit(images, 6, backbone, maps=maps)

    def test_light_changes_none(self, images):
        maps = self.make_maps(images, np.float32)
        assert same_weights(*(fit(images, 2, maps=maps, light=light)[0] for light in (True, False)))

    def test_losses_are_those_of_the_frozen_trunk(self, images):
        model, losses = self.fit_frozen(images)
        from_maps, cached = self.fit_frozen(images, self.make_maps(images, np.float32))
        np.testing.assert_array_equal(cached, losses)
        assert same_weights(from_maps, model)

    def test_float16_maps_come_close(self, images):
        _, losses = self.fit_frozen(images)
        _, cached = self.fit_frozen(images, self.make_maps(images, np.float16))
        np.testing.assert_allclose(cached, losses, rtol=5e-3, atol=1e-4)


class TestTraining:
    def test_learns(self, images):
        _, losses = fit(images, 60)
        assert losses[-8:, 0].mean() < 0.5 * losses[:4, 0].mean()

    @pytest.mark.exhaustive
    def test_a_backbone_without_fully_connected_layers_learns(self, images):
        torch.manual_seed(0)
        backbone = make_backbone("squeezenet1_0")
        freeze(backbone, "all")
        model, losses = fit(images, 30, backbone, output_rate=3.0)
        assert losses[-8:, 0].mean() < 0.7 * losses[:4, 0].mean()
        assert model.backbone.sizes["fc6"] == 1024

    def test_output_layers_learn_faster_by_their_rate(self, images):
        moves = {}
        for rate in (1.0, 4.0):
            model, _ = fit(images, 1, output_rate=rate)
            moves[rate] = model.scores.weight.detach(), model.backbone.trunk[0].weight.detach()
        torch.testing.assert_close(moves[4.0][1], moves[1.0][1], rtol=0, atol=0)
        assert not torch.equal(moves[4.0][0], moves[1.0][0])

    def test_seeds(self, images):
        model, losses = fit(images, 3)
        again, same = fit(images, 3)
        another, _ = fit(images, 3, seed=4)
        np.testing.assert_array_equal(same, losses)
        assert same_weights(again, model)
        assert not same_weights(another, model)

    def test_light_changes_what_the_trunk_sees(self, images):
        (model, _), (plain, _), (again, _) = (fit(images, 2, light=light) for light in (True, False, True))
        assert same_weights(again, model)
        assert not same_weights(plain, model)

    @pytest.mark.parametrize("backbone", [
        "tiny", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("squeezenet1_0", "mobilenet_v3_large+align")),
    ])
    def test_killed_and_resumed_ends_with_the_same_bytes(self, images, tmp_path, monkeypatch, backbone):
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
        torch.manual_seed(0)
        first = make_backbone(backbone)
        model, losses = fit(images, 4, copy.deepcopy(first))

        def kill(step, values):
            if step == 3:
                raise Killed

        with pytest.raises(Killed):
            fit(images, 4, copy.deepcopy(first), tmp_path, kill)
        steps = []
        resumed, resumed_losses = fit(images, 4, copy.deepcopy(first), tmp_path, lambda step, values: steps.append(step))
        assert steps == [3, 4]
        np.testing.assert_array_equal(resumed_losses, losses)
        assert same_weights(resumed, model)

    def test_losses_by_hand_in_the_first_step(self, images):
        """New output layers give values near 0: the class loss is close to log 3. Losses are means over the batch's regions."""
        records, _ = images
        batch = make_sampler(records).draw(0)
        targets = np.concatenate([sample.targets for sample in batch])
        size = np.abs(targets)
        expected = np.where(size < 1, size**2 / 2, size - 0.5).sum() / len(targets)
        backbone = make_tiny()
        with torch.no_grad():
            backbone.trunk[9].weight *= 0.1
        _, losses = fit(images, 1, backbone)
        np.testing.assert_allclose(losses[0], [np.log(3), expected], rtol=0.02)

    def test_log_is_told_both_losses(self, images):
        logged = {}
        _, losses = fit(images, 2, log=logged.__setitem__)
        assert list(logged) == [1, 2]
        assert logged[2] == {"learning rate": pytest.approx(0.001), "class_loss": losses[1, 0], "box_loss": losses[1, 1]}

    def test_bfloat16_comes_close(self, images):
        _, exact = fit(images, 2)
        _, losses = fit(images, 2, precision="bfloat16")
        np.testing.assert_allclose(losses, exact, rtol=0.03)

    def test_an_image_that_cannot_be_read_ends_training(self, images):
        def fail(count):
            if count == 9:
                raise OSError("broken.jpg")

        with pytest.raises(OSError, match=r"broken\.jpg"):
            fit(images, 50, before_read=fail)


def test_mixed_precision_reaches_the_pooling(images):
    model, pixels = FastRCNN(make_tiny(), 2), images[1][0]
    scaling = Scaling.of(HEIGHT, WIDTH, 90, 1000)
    with torch.no_grad(), mixed_precision(CPU, "bfloat16"):
        pooled = model.pool(conv_map(model.backbone, pixels, scaling, CPU), rois_of(np.float32([[0, 0, 40, 40]]), scaling))
    assert pooled.dtype == torch.bfloat16
