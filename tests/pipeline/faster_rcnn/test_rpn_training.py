"""Training a region proposal network: frozen layers, cached maps, gradients, and runs that go on."""

import copy

import numpy as np
import pytest
import torch

from pipeline.fast_rcnn.training import freeze
from pipeline.faster_rcnn.rpn import RPN
from pipeline.faster_rcnn.rpn_training import (
    make_rpn,
)
from pipeline.networks import training
from pipeline.networks.backbones import make_backbone
from pipeline.networks.map_inputs import ImageDraw
from pipeline.networks.whole_images import conv_map
from tests.pipeline.faster_rcnn.rpn_runs import (
    CPU,
    LAYOUT,
    SCALING,
    Killed,
    fit,
    make_maps,
    make_sampler,
    make_tiny,
    same_weights,
)

pytestmark = pytest.mark.usefixtures("one_thread")

class TestFreeze:
    @pytest.mark.parametrize(("which", "frozen"), [("none", 0), ("first", 3), ("all", 4)])
    def test_layers_stay_bit_identical_or_change(self, images, which, frozen):
        backbone = make_tiny()
        backbone.frozen = 7  # as if three convolutions were frozen
        freeze(backbone, which)
        fit(images, 2, backbone)
        before = make_tiny()
        same = [torch.equal(before.trunk[number].weight, backbone.trunk[number].weight) for number in (0, 3, 6, 9)]
        assert same == [number < frozen for number in range(4)]
        assert same_weights(backbone.fc, before.fc)  # the proposal network has no use for them

    @pytest.mark.parametrize("dtype", [np.float32, np.float16])
    def test_cached_maps_leave_every_layer_as_it_was(self, images, dtype):
        backbone = make_tiny()
        freeze(backbone, "all")
        rpn, losses = fit(images, 3, backbone, maps=make_maps(images, dtype))
        assert same_weights(backbone, make_tiny())
        assert not same_weights(rpn, fit(images, 1, make_tiny(), maps=make_maps(images, dtype))[0])
        assert losses[-1].sum() < losses[0].sum()


class TestCachedMaps:
    def fit_frozen(self, images, maps=None, name="tiny"):
        backbone = make_tiny(name=name)
        freeze(backbone, "all")
        return fit(images, 4, backbone, maps=maps)

    @pytest.mark.parametrize("name", ["tiny", "squeezenet1_0"])
    def test_losses_are_those_of_the_frozen_trunk(self, images, name):
        rpn, losses = self.fit_frozen(images, name=name)
        from_maps, cached = self.fit_frozen(images, make_maps(images, np.float32, name), name)
        np.testing.assert_array_equal(cached, losses)
        assert same_weights(from_maps, rpn)

    def test_float16_maps_come_close(self, images):
        _, losses = self.fit_frozen(images)
        _, cached = self.fit_frozen(images, make_maps(images, np.float16))
        np.testing.assert_allclose(cached, losses, rtol=5e-3, atol=1e-4)


class TestGradient:
    def test_reaches_the_first_layer_as_finite_differences_say(self, images):
        records, pixels = images
        sampler, turn = make_sampler(records), ImageDraw(1, True, 4)
        backbone = make_tiny()
        torch.manual_seed(1)
        rpn = make_rpn(backbone, LAYOUT)
        for layer in (rpn.hidden, rpn.scores, rpn.deltas):
            torch.nn.init.normal_(layer.weight, std=0.05)
        model = torch.nn.ModuleDict({"trunk": backbone.trunk, "rpn": rpn}).double()

        def loss():
            values = conv_map(backbone, pixels[turn.number], SCALING, CPU, mirror=turn.mirrored)
            outputs = rpn(values)
            assert outputs[0].dtype == torch.float64
            return sampler.losses(rpn, outputs, turn, SCALING, values.shape[1:]).sum()

        loss().backward()
        for name in ("trunk.0.weight", "trunk.9.bias", "rpn.hidden.weight", "rpn.scores.weight", "rpn.deltas.weight"):
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


class TestTraining:
    def test_learns(self, images):
        _, losses = fit(images, 40)
        assert losses[-8:, 0].mean() < 0.6 * losses[:4, 0].mean()

    def test_losses_in_the_first_step_are_those_of_outputs_near_0(self, images):
        """log 2 of every anchor; the targets' smooth L1 over the number of anchors; images count alike."""
        records, _ = images
        sampler = make_sampler(records)
        rpn, expected = make_rpn(make_tiny(), LAYOUT), np.zeros(2)
        for turn in sampler.order.draw(0):
            cells = 6, 8
            zeros = torch.zeros(6 * 8 * 9), torch.zeros(6 * 8 * 9, 4)
            expected += sampler.losses(rpn, zeros, turn, SCALING, cells).numpy() / 2
        backbone = make_tiny()
        with torch.no_grad():
            backbone.trunk[9].weight *= 0.1
        _, losses = fit(images, 1, backbone)
        assert expected[0] == pytest.approx(np.log(2))
        np.testing.assert_allclose(losses[0], expected, rtol=0.05)

    def test_the_trunk_learns_and_the_new_layers_faster_by_their_rate(self, images):
        moves = {}
        for rate in (1.0, 4.0):
            backbone = make_tiny()
            rpn, _ = fit(images, 1, backbone, rate=rate)
            moves[rate] = backbone.trunk[0].weight.detach(), rpn.scores.weight.detach()
        torch.testing.assert_close(moves[4.0][0], moves[1.0][0], rtol=0, atol=0)
        assert not torch.equal(moves[1.0][0], make_tiny().trunk[0].weight)
        torch.manual_seed(0)
        assert not torch.equal(moves[4.0][1], moves[1.0][1])

    def test_seeds(self, images):
        rpn, losses = fit(images, 3)
        again, same = fit(images, 3)
        another, _ = fit(images, 3, seed=4)
        np.testing.assert_array_equal(same, losses)
        assert same_weights(again, rpn)
        assert not same_weights(another, rpn)

    def test_light_changes_what_the_trunk_sees_and_no_cached_map(self, images):
        (rpn, _), (plain, _), (again, _) = (fit(images, 2, light=light) for light in (True, False, True))
        assert same_weights(again, rpn)
        assert not same_weights(plain, rpn)
        maps = make_maps(images, np.float32)
        assert same_weights(*(fit(images, 2, maps=maps, light=light)[0] for light in (True, False)))

    @pytest.mark.parametrize("name", ["tiny", pytest.param("squeezenet1_0", marks=pytest.mark.exhaustive)])
    @pytest.mark.parametrize("cached", [False, True])
    def test_killed_and_resumed_ends_with_the_same_bytes(self, images, tmp_path, monkeypatch, name, cached):
        """The calibration of a backbone without fully connected layers goes on with the rest."""
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
        first, maps = make_tiny(name=name), make_maps(images, np.float16, name) if cached else None
        freeze(first, "all" if cached else "first")
        whole, killed, last = (copy.deepcopy(first) for _ in range(3))
        rpn, losses = fit(images, 4, whole, maps=maps)

        def kill(step, values):
            if step == 3:
                raise Killed

        with pytest.raises(Killed):
            fit(images, 4, killed, tmp_path, kill, maps)
        steps = []
        resumed, resumed_losses = fit(images, 4, last, tmp_path, lambda step, values: steps.append(step), maps)
        assert steps == [3, 4]
        np.testing.assert_array_equal(resumed_losses, losses)
        assert same_weights(resumed, rpn)
        assert same_weights(last, whole)
        assert same_weights(whole.trunk, first.trunk) == cached

    def test_log_is_told_both_losses(self, images):
        logged = {}
        _, losses = fit(images, 2, log=logged.__setitem__)
        assert logged[2] == {"learning rate": pytest.approx(0.001), "object_loss": losses[1, 0], "anchor_loss": losses[1, 1]}

    def test_bfloat16_comes_close(self, images):
        _, exact = fit(images, 2)
        _, losses = fit(images, 2, precision="bfloat16")
        np.testing.assert_allclose(losses, exact, rtol=0.03)

    def test_what_never_was_classified_is_standardised(self, images):
        """Maps of SqueezeNet and EfficientNet; those of a backbone with fully connected layers are taken as they are."""
        for name, standardised in (("squeezenet1_0", True), ("efficientnet_lite0", True), ("tiny", False)):
            backbone = make_tiny(name=name)
            freeze(backbone, "all")
            rpn, _ = fit(images, 1, backbone, maps=make_maps(images, np.float32, name))
            assert ((rpn.scale != 1).any() and (rpn.shift != 0).any()) == standardised

    @pytest.mark.parametrize(("name", "hidden"), [("vgg16", 512), ("alexnet", 256), ("tiny", 128)])
    def test_hidden_values_are_those_of_the_paper(self, name, hidden):
        with torch.device("meta"):
            backbone = make_backbone(name)
            rpn = make_rpn(backbone, LAYOUT)
        assert isinstance(rpn, RPN)
        assert rpn.hidden.weight.shape == (hidden, backbone.view.channels, 3, 3)
        assert len(rpn.base_anchors) == 9
