"""R-FCN's network: maps and votes by hand, folding, restoring, detections, and joint training with its proposal network."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.detection.candidates import Limits
from pipeline.errors import PipelineError
from pipeline.fast_rcnn.hard_examples import HardExamples
from pipeline.fast_rcnn.training import freeze
from pipeline.faster_rcnn.joint import FasterRCNNDetector
from pipeline.faster_rcnn.rpn import ProposalSettings, propose_regions
from pipeline.faster_rcnn.rpn_training import make_rpn
from pipeline.networks import training
from pipeline.networks.backbones import make_backbone
from pipeline.networks.compute import for_inference
from pipeline.networks.whole_images import Scaling, conv_map, rois_of
from pipeline.r_fcn.network import RFCN, restore_rfcn
from pipeline.r_fcn.position_pooling import ps_roi_pool
from tests.pipeline.faster_rcnn.joint_runs import CPU, LAYOUT, Killed, fit, make_maps, make_tiny, same_weights

pytestmark = pytest.mark.usefixtures("one_thread")
DEVIATIONS = np.tile((0.1, 0.1, 0.2, 0.2), (2, 1))


def make_rfcn(name="tiny", bins=3, seed=0):
    """A network whose outputs are not near 0."""
    torch.manual_seed(seed)
    model = RFCN(make_backbone(name), 2, bins)
    for layer in (model.scores, model.deltas):
        nn.init.normal_(layer.weight, std=layer.in_channels**-0.5)
    return model.eval()


def train_rfcn(images, steps=4, backbone=None, checkpoint=None, log=None, bins=3, **settings):
    return fit(images, steps, backbone, checkpoint, log, make_detector=lambda backbone: RFCN(backbone, 2, bins), **settings)


def draw_rois(rng, count=9):
    corners = rng.uniform(0, 90, (count, 2, 2))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)


class TestNetwork:
    def test_scores_and_deltas_are_votes_of_its_maps(self, rng):
        model, values, rois = make_rfcn(), torch.randn(128, 6, 7), draw_rois(rng)
        with torch.no_grad():
            deep = model.hidden(nn.functional.pad(values[None], (1, 2, 1, 2))).relu()
            expected = [
                ps_roi_pool(layer(deep)[0], rois, 1 / 16, 3).mean((2, 3)) for layer in (model.scores, model.deltas)
            ]
            scores, deltas = model.of_regions(model.maps(values), rois)
        assert (scores.shape, deltas.shape) == ((9, 3), (9, 2, 4))
        torch.testing.assert_close(scores, expected[0])
        for label in range(2):
            torch.testing.assert_close(deltas[:, label], expected[1])

    def test_with_one_bin_a_region_is_the_mean_of_its_cells(self):
        model = make_rfcn(bins=1)
        with torch.no_grad():
            maps = model.maps(torch.randn(128, 4, 5))
            scores, _ = model.of_regions(maps, np.array([[16, 0, 47, 63]], np.float32))
        torch.testing.assert_close(scores[0], maps[:3, :, 1:3].mean((1, 2)))

    def test_number_of_its_maps(self):
        for bins in (1, 3, 7):
            model = make_rfcn(bins=bins)
            assert (model.scores.out_channels, model.deltas.out_channels) == (3 * bins**2, 4 * bins**2)
            assert model.num_classes == 2

    @pytest.mark.parametrize(("name", "inputs"), [("tiny", 256), ("efficientnet_lite0", 1280)])
    def test_layers_of_regions_run_over_the_map_where_they_are_convolutions(self, name, inputs):
        model = make_rfcn(name)
        assert model.scores.in_channels == inputs
        assert (model.hidden is None) == bool(model.backbone.fc) == (name != "tiny")
        with torch.no_grad():
            assert model.maps(torch.randn(model.backbone.view.channels, 5, 8)).shape == (7 * 9, 5, 8)

    def test_output_layers_start_small(self):
        torch.manual_seed(0)
        model = RFCN(make_backbone("tiny"), 2, 3)
        for layer in (model.scores, model.deltas):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
            assert not layer.bias.any()

    def test_the_layer_of_tiny_slides_over_the_map(self):
        """At the second cell of a crop's map it sees the whole crop, as in the backbone."""
        torch.manual_seed(0)
        backbone = make_backbone("tiny").eval()
        crops, outputs = torch.randn(1, 3, 64, 64), []
        with torch.no_grad():
            conv_map, expected = backbone.trunk(crops)[0], backbone(crops, "fc6")
            model = RFCN(backbone, 2, 3)
            model.hidden.register_forward_hook(lambda module, inputs, output: outputs.append(output))
            model.maps(conv_map)
        assert outputs[0].shape == (1, 256, 4, 4)
        torch.testing.assert_close(outputs[0][:, :, 1, 1].relu(), expected)

    @pytest.mark.parametrize(("name", "channels"), [("squeezenet1_0", 512), ("alexnet", 256)])
    def test_other_backbones_get_a_new_layer(self, name, channels):
        layer = make_rfcn(name).hidden
        assert (layer.in_channels, layer.out_channels, layer.kernel_size) == (channels, 1024, (1, 1))
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)

    def test_scores_are_float32_in_bfloat16(self, rng):
        model = for_inference(make_rfcn(), CPU, "bfloat16")
        scores, deltas = model.of_regions(model.maps(torch.randn(128, 6, 7).bfloat16()), draw_rois(rng))
        assert scores.dtype == deltas.dtype == torch.float32

    def test_fold_makes_deltas_of_boxes(self, rng):
        model, values, rois = make_rfcn(), torch.randn(128, 6, 7), draw_rois(rng)
        model.deltas.bias.data.normal_()
        with torch.no_grad():
            scores, before = model.of_regions(model.maps(values), rois)
            model.fold(np.zeros((2, 4)), DEVIATIONS)
            same, after = model.of_regions(model.maps(values), rois)
        torch.testing.assert_close(after, before * torch.tensor([0.1, 0.1, 0.2, 0.2]))
        assert torch.equal(scores, same)

    @pytest.mark.parametrize(("mean", "deviation"), [(0.1, 0.0), (0.0, 0.1)])
    def test_fold_refuses_targets_of_classes(self, mean, deviation):
        means, deviations = np.zeros((2, 4)), DEVIATIONS.copy()
        means[1, 0] += mean
        deviations[1, 0] += deviation
        with pytest.raises(ValueError, match="class-agnostic"):
            make_rfcn().fold(means, deviations)

    def test_regions_that_pool_the_same_are_one(self):
        rois = np.array([[0, 0, 30, 30], [5, 5, 20, 20], [0.2, 0, 30.4, 29.9], [5, 5, 20, 21]], np.float32)
        assert make_rfcn().distinct(rois).tolist() == [0, 1, 3]

    def test_calibration_standardises_what_the_new_layers_see(self):
        model = make_rfcn("squeezenet1_0")
        maps = [torch.randn(512, 5, 6) * 30 + 100 for _ in range(2)]
        seen = []
        model.hidden.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
        model.calibrate_on((values, None) for values in maps)
        for values in maps:
            model.maps(values)
        cells = torch.cat([values.flatten(2) for values in seen], dim=2)
        torch.testing.assert_close(cells.mean((0, 2)), torch.zeros(512), rtol=0, atol=1e-3)
        torch.testing.assert_close(cells.std(2)[0], torch.ones(512), rtol=0, atol=0.02)

    def test_of_other_backbones_nothing_is_calibrated(self):
        for name in ("tiny", "efficientnet_lite0"):
            model = make_rfcn(name)
            before = copy.deepcopy(model)
            model.calibrate_on(iter(()))
            assert same_weights(before, model)


class TestRestore:
    @pytest.mark.parametrize(("name", "bins"), [("tiny", 3), ("tiny", 1), ("efficientnet_lite0", 2)])
    def test_the_same_network(self, name, bins, rng):
        model = make_rfcn(name, bins)
        again = restore_rfcn(model.state_dict(), name, "weights").eval()
        values, rois = torch.randn(model.backbone.view.channels, 5, 6), draw_rois(rng)
        with torch.no_grad():
            for output, restored in zip(model.of_regions(model.maps(values), rois), again.of_regions(again.maps(values), rois)):
                assert torch.equal(output, restored)

    @pytest.mark.parametrize(("change", "message"), [
        ({"scores.bias": None}, "scores.bias is missing"), ({"deltas.bias": None}, "deltas.bias is missing"),
        ({"deltas.bias": torch.zeros(20)}, "27 maps of scores and 20 of deltas are no multiples of the square"),
        ({"scores.bias": torch.zeros(26)}, "26 maps of scores and 36 of deltas are no multiples"),
        ({"hidden.weight": torch.zeros(1)}, r"hidden.weight has shape \(1,\)"),
    ])
    def test_of_other_weights_is_an_error(self, change, message):
        tensors = {name: value for name, value in (make_rfcn().state_dict() | change).items() if value is not None}
        with pytest.raises(PipelineError, match=f"weights: not the weights of .*{message}"):
            restore_rfcn(tensors, "tiny", "weights")


class TestDetector:
    def test_is_proposals_and_votes_over_one_map(self, images):
        model = for_inference(make_rfcn(), CPU, "float32")
        rpn = for_inference(make_rpn(model.backbone, LAYOUT), CPU, "float32")
        pixels, settings = images[1][0], ProposalSettings(100, 20)
        candidates = FasterRCNNDetector(model, rpn, CPU, 90, 1000, proposals=settings, limits=Limits(0, 1.0, 0)).detect(pixels)
        scaling = Scaling.of(60, 80, 90, 1000)
        with torch.inference_mode():
            values = conv_map(model.backbone, pixels, scaling, CPU)
            proposals = propose_regions(rpn, rpn(values), values.shape[1:], scaling, settings)
            scores, _ = model.of_regions(model.maps(values), rois_of(proposals, scaling))
        assert len(proposals) > 4
        assert len(candidates.boxes) == 2 * len(proposals)
        np.testing.assert_allclose(np.sort(candidates.score), np.sort(scores.softmax(1)[:, 1:].flatten()), rtol=1e-5)


class TestTraining:
    def test_learns(self, images):
        for hard in (None, HardExamples()):
            _, _, losses = train_rfcn(images, 30, hard=hard, learning_rate=0.03)
            assert losses[-8:, 0].mean() < 0.7 * losses[:4, 0].mean()
            assert losses[-8:, 2].mean() < 0.7 * losses[:4, 2].mean()

    def test_losses_in_the_first_step_are_those_of_outputs_near_0(self, images):
        _, _, losses = train_rfcn(images, 1)
        np.testing.assert_allclose(losses[0, [0, 2]], [np.log(2), np.log(3)], rtol=0.06)

    def test_seeds(self, images):
        model, rpn, losses = train_rfcn(images, 2)
        again, same_rpn, same = train_rfcn(images, 2)
        another, _, _ = train_rfcn(images, 2, seed=4)
        np.testing.assert_array_equal(same, losses)
        assert same_weights(again, model)
        assert same_weights(same_rpn, rpn)
        assert not same_weights(another, model)

    def test_output_layers_learn_faster_by_their_rate(self, images):
        names, moves = ("hidden", "scores", "deltas"), []
        for rate in (1.0, 4.0):
            model, rpn, _ = train_rfcn(images, 1, rate=rate)
            moves.append([model.backbone.trunk[0].weight, rpn.scores.weight, *(getattr(model, name).weight for name in names)])
        assert [torch.equal(*pair) for pair in zip(*moves)] == [True, True, True, False, False]

    @pytest.mark.parametrize("name", ["tiny", pytest.param("efficientnet_lite0", marks=pytest.mark.exhaustive)])
    @pytest.mark.parametrize("hard", [None, HardExamples(20)])
    def test_killed_and_resumed_ends_with_the_same_bytes(self, images, tmp_path, monkeypatch, name, hard):
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
        first = make_tiny(name)
        freeze(first, "first")
        model, rpn, losses = train_rfcn(images, 4, copy.deepcopy(first), hard=hard)

        def kill(step, values):
            if step == 3:
                raise Killed

        with pytest.raises(Killed):
            train_rfcn(images, 4, copy.deepcopy(first), tmp_path, kill, hard=hard)
        steps = []
        again, again_rpn, same = train_rfcn(
            images, 4, copy.deepcopy(first), tmp_path, lambda step, values: steps.append(step), hard=hard
        )
        assert steps == [3, 4]
        np.testing.assert_array_equal(same, losses)
        assert same_weights(again, model)
        assert same_weights(again_rpn, rpn)

    def test_cached_maps_give_the_losses_of_the_frozen_trunk(self, images):
        runs = []
        for maps in (None, make_maps(images, np.float32)):
            backbone = make_tiny()
            freeze(backbone, "all")
            runs.append(train_rfcn(images, 3, backbone, maps=maps))
        np.testing.assert_array_equal(runs[0][2], runs[1][2])
        assert same_weights(runs[0][0], runs[1][0])

    def test_bfloat16_comes_close(self, images):
        _, _, exact = train_rfcn(images, 1)
        _, _, rounded = train_rfcn(images, 1, precision="bfloat16")
        np.testing.assert_allclose(rounded[:, [0, 2]], exact[:, [0, 2]], rtol=0.03)
