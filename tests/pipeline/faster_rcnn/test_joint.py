"""Faster R-CNN: detections in one pass, and joint training: gradients of all four losses, and runs that are killed and go on."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.detection.candidates import Limits
from pipeline.errors import PipelineError
from pipeline.fast_rcnn.detect import FastRCNNDetector, SeenMap
from pipeline.fast_rcnn.hard_examples import HardExamples
from pipeline.fast_rcnn.network import FastRCNN
from pipeline.fast_rcnn.sampling import SamplingSettings, draw_regions
from pipeline.fast_rcnn.training import freeze
from pipeline.faster_rcnn import joint as faster_rcnn
from pipeline.faster_rcnn.joint import LOSSES, FasterRCNNDetector, ImageRegions, RegionChoice
from pipeline.faster_rcnn.rpn import ProposalSettings, propose_regions
from pipeline.faster_rcnn.rpn_training import AnchorSampler, make_rpn
from pipeline.networks import training
from pipeline.networks.backbones import make_backbone
from pipeline.networks.compute import for_inference
from pipeline.networks.whole_images import Scaling, conv_map, mirror_boxes, rois_of
from tests.pipeline.faster_rcnn.joint_runs import (
    CPU,
    HEIGHT,
    LAYOUT,
    SCALING,
    WIDTH,
    Killed,
    fit,
    make_maps,
    make_tiny,
    same_weights,
)

pytestmark = pytest.mark.usefixtures("one_thread")


class TestDetector:
    def make(self):
        """Networks whose outputs are not near 0."""
        torch.manual_seed(1)
        backbone = make_backbone("tiny")
        model, rpn = FastRCNN(backbone, 2), make_rpn(backbone, LAYOUT)
        for layer, std in ((model.scores, 0.3), (model.deltas, 0.05), (rpn.hidden, 0.02), (rpn.scores, 0.1), (rpn.deltas, 0.02)):
            torch.nn.init.normal_(layer.weight, std=std)
        return for_inference(model, CPU, "float32"), for_inference(rpn, CPU, "float32")

    @pytest.mark.parametrize("settings", [ProposalSettings(), ProposalSettings(100, 7)])
    def test_is_proposals_and_fast_rcnn_on_them_in_one_map(self, images, settings):
        model, rpn = self.make()
        pixels = images[1][0][:50]
        candidates = FasterRCNNDetector(model, rpn, CPU, 90, 1000, proposals=settings, limits=Limits(5, 0.4)).detect(pixels)
        scaling = Scaling.of(50, WIDTH, 90, 1000)
        detector = FastRCNNDetector(model, CPU, 90, 1000, Limits(5, 0.4))
        with torch.inference_mode():
            values = conv_map(model.backbone, pixels, scaling, CPU)
            proposals = propose_regions(rpn, rpn(values), values.shape[1:], scaling, settings)
            over_the_map = detector.detect_in_maps([SeenMap(values, scaling)], proposals, 50, WIDTH)
        assert len(proposals) > 4
        for expected in (over_the_map, detector.detect(pixels, proposals)):
            for name in ("class_index", "score", "boxes", "survives"):
                np.testing.assert_array_equal(getattr(candidates, name), getattr(expected, name))
        assert np.bincount(candidates.class_index).max() <= 5
        assert (candidates.boxes <= [WIDTH, 50, WIDTH, 50]).all()

    def test_needs_one_map(self, images):
        model, rpn = self.make()
        maps = []
        model.backbone.trunk.register_forward_hook(lambda *args: maps.append(1))
        FasterRCNNDetector(model, rpn, CPU, 90, 1000, proposals=ProposalSettings()).detect(images[1][0])
        assert maps == [1]

    def test_without_proposals_there_is_nothing(self, images):
        model, rpn = self.make()
        settings = ProposalSettings(min_side=1000.0)
        candidates = FasterRCNNDetector(model, rpn, CPU, 90, 1000, proposals=settings).detect(images[1][0])
        assert candidates.boxes.shape == (0, 4)

    def test_an_image_smaller_than_every_anchor(self):
        model, rpn = self.make()
        detector = FasterRCNNDetector(model, rpn, CPU, 9, 1000, proposals=ProposalSettings(min_side=1.0))
        candidates = detector.detect(np.zeros((3, 4, 3), np.uint8))
        assert np.isfinite(candidates.boxes).all()
        assert (candidates.boxes <= [4, 3, 4, 3]).all()


class TestGradient:
    def gradients(self, images, monkeypatch, chosen):
        """The gradient of the trunk's first layer, of the losses `chosen` alone, in the first step."""
        seen = []

        def one_step(model, run, batches, losses_of, **others):
            torch.manual_seed(0)
            batch = next(iter(batches(0)))
            for losses in (part() for part in losses_of(batch)):
                losses[chosen].sum().backward()
            named = {name: value.grad for name, value in model.named_parameters()}
            seen.append(named)
            return np.zeros((1, 4), np.float32)

        monkeypatch.setattr(faster_rcnn, "train", one_step)
        fit(images, 1)
        return seen[0]

    def test_of_all_four_losses_reach_the_trunk(self, images, monkeypatch):
        gradients = [self.gradients(images, monkeypatch, [number])["detector.backbone.trunk.0.weight"] for number in range(4)]
        assert all(gradient.abs().sum() > 0 for gradient in gradients)
        whole = self.gradients(images, monkeypatch, [0, 1, 2, 3])["detector.backbone.trunk.0.weight"]
        torch.testing.assert_close(sum(gradients), whole, rtol=1e-3, atol=1e-6)

    def test_of_the_detectors_losses_do_not_flow_through_the_proposals(self, images, monkeypatch):
        """They flow through the map, and not through the corners of the proposals."""
        of_detector_losses = self.gradients(images, monkeypatch, [2, 3])
        assert all(value is None or (value == 0).all() for name, value in of_detector_losses.items() if name.startswith("rpn."))
        assert of_detector_losses["detector.deltas.weight"].abs().sum() > 0
        of_rpn_losses = self.gradients(images, monkeypatch, [0, 1])
        of_box_layer = [value for name, value in of_rpn_losses.items() if "deltas" in name and "rpn" not in name]
        assert all(value is None or (value == 0).all() for value in of_box_layer)
        assert of_rpn_losses["rpn.deltas.weight"].abs().sum() > 0


class TestTraining:
    def test_names_of_the_losses(self, images):
        logged = {}
        _, _, losses = fit(images, 2, log=logged.__setitem__)
        assert LOSSES == ("object_loss", "anchor_loss", "class_loss", "box_loss")
        assert logged[2] == {"learning rate": pytest.approx(0.001), **dict(zip(LOSSES, losses[1]))}

    def test_losses_in_the_first_step_are_those_of_outputs_near_0(self, images):
        """log 2 of an anchor, log 3 of a region, each per anchor or region of an image, and images count alike."""
        for number in (1, 2, 3):
            backbone = make_tiny()
            with torch.no_grad():
                backbone.trunk[9].weight *= 0.1
            _, _, losses = fit(images, 1, backbone, images_a_step=number)
            assert losses.shape == (1, 4)
            np.testing.assert_allclose(losses[0, [0, 2]], [np.log(2), np.log(3)], rtol=0.06)

    def test_learns(self, images):
        _, _, losses = fit(images, 50)
        assert losses[-8:, 0].mean() < 0.6 * losses[:4, 0].mean()
        assert losses[-8:, 2].mean() < 0.6 * losses[:4, 2].mean()

    def test_deltas_come_out_plain(self, images):
        """The targets' deviations are 0.1, 0.1, 0.2, 0.2 and their means 0: the layer's weights are so many times smaller."""
        deviations = []
        for values in ((0.1, 0.1, 0.2, 0.2), (0.1, 0.2, 0.2, 0.2)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(faster_rcnn, "DEVIATIONS", values)
                model, _, _ = fit(images, 1, learning_rate=1e-9)
            deviations.append(model.deltas.weight.detach().unflatten(0, (2, 4)).std((0, 2)))
        np.testing.assert_allclose(deviations[0] / 0.001, [0.1, 0.1, 0.2, 0.2], rtol=0.1)
        np.testing.assert_allclose(deviations[1] / deviations[0], [1, 2, 1, 1], rtol=1e-4)

    def test_constants_are_the_releases(self):
        assert faster_rcnn.DEVIATIONS == (0.1, 0.1, 0.2, 0.2)
        assert SamplingSettings(1, 128, 0.25, 0.5, (0.0, 0.5)) == faster_rcnn.SAMPLING
        assert ProposalSettings(12000, 2000, 0.7, 16.0) == faster_rcnn.PROPOSALS_IN_TRAINING

    def test_seeds(self, images):
        model, rpn, losses = fit(images, 2)
        again, same_rpn, same = fit(images, 2)
        another, _, _ = fit(images, 2, seed=4)
        np.testing.assert_array_equal(same, losses)
        assert same_weights(again, model)
        assert same_weights(same_rpn, rpn)
        assert not same_weights(another, model)

    def test_light_changes_what_the_trunk_sees(self, images):
        (model, rpn, _), (plain, plain_rpn, _), (again, again_rpn, _) = (fit(images, 2, light=lit) for lit in (True, False, True))
        assert same_weights(again, model)
        assert same_weights(again_rpn, rpn)
        assert not same_weights(plain, model)
        assert not same_weights(plain_rpn, rpn)

    @pytest.mark.parametrize(("rates", "faster"), [
        ({"rate": 4.0}, ["scores", "deltas"]), ({"rpn_rate": 4.0}, ["rpn.hidden", "rpn.scores", "rpn.deltas"]),
    ])
    def test_new_layers_learn_faster_by_their_rates(self, images, rates, faster):
        moves = []
        for given in ({}, rates):
            model, rpn, _ = fit(images, 1, **given)
            moves.append({
                "trunk": model.backbone.trunk[0].weight, "fc6": model.backbone.fc["fc6"].weight, "scores": model.scores.weight,
                "deltas": model.deltas.weight, "rpn.hidden": rpn.hidden.weight, "rpn.scores": rpn.scores.weight,
                "rpn.deltas": rpn.deltas.weight,
            })
        assert [name for name in moves[0] if not torch.equal(moves[0][name], moves[1][name])] == faster

    def test_regions_are_of_the_image_or_its_mirror_and_of_what_is_proposed_just_then(self, images, monkeypatch):
        seen = []

        def spy(matches, settings, *rest):
            seen.append((matches, settings))
            return draw_regions(matches, settings, *rest)

        monkeypatch.setattr(faster_rcnn, "draw_regions", spy)
        fit(images, 3)
        order = AnchorSampler(images[0], [SCALING] * 6, LAYOUT, mirror=True, images_a_step=2, seed=3).order
        turns = [turn for step in range(3) for turn in order.draw(step)]
        assert {turn.mirrored for turn in turns} == {False, True}
        for turn, (matches, settings) in zip(turns, seen, strict=True):
            objects = images[0][turn.number].boxes
            np.testing.assert_array_equal(matches.boxes[:2], mirror_boxes(objects, WIDTH) if turn.mirrored else objects)
            assert matches.label[:2].tolist() == [1, 2]
            assert len(matches.boxes) > 10
            assert (settings.images, settings.regions, settings.background_overlaps) == (1, 32, (0.0, 0.5))
        assert len({matches.boxes[2:].tobytes() for matches, _ in seen}) == 6

    @pytest.mark.parametrize("name", ["tiny", pytest.param("squeezenet1_0", marks=pytest.mark.exhaustive)])
    def test_killed_and_resumed_ends_with_the_same_bytes(self, images, tmp_path, monkeypatch, name):
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
        first = make_tiny(name)
        freeze(first, "first")
        model, rpn, losses = fit(images, 4, copy.deepcopy(first))

        def kill(step, values):
            if step == 3:
                raise Killed

        with pytest.raises(Killed):
            fit(images, 4, copy.deepcopy(first), tmp_path, kill)
        steps = []
        resumed, resumed_rpn, resumed_losses = fit(
            images, 4, copy.deepcopy(first), tmp_path, lambda step, values: steps.append(step)
        )
        assert steps == [3, 4]
        np.testing.assert_array_equal(resumed_losses, losses)
        assert same_weights(resumed, model)
        assert same_weights(resumed_rpn, rpn)

    @pytest.mark.parametrize(("which", "frozen"), [("none", 0), ("first", 3), ("all", 4)])
    def test_frozen_layers_stay_bit_identical(self, images, which, frozen):
        backbone = make_tiny()
        backbone.frozen = 7  # as if three convolutions were frozen
        freeze(backbone, which)
        model, _, _ = fit(images, 2, backbone)
        before, after = make_tiny().trunk, model.backbone.trunk
        assert [torch.equal(before[number].weight, after[number].weight) for number in (0, 3, 6, 9)] == [
            number < frozen for number in range(4)
        ]

    @pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 0), (np.float16, 5e-3)])
    def test_cached_maps_give_the_losses_of_the_frozen_trunk(self, images, dtype, tolerance):
        """In float16 the proposals move a little, and other regions may be sampled later on; so the first step alone there."""
        steps = 1 if tolerance else 4
        runs = []
        for maps in (None, make_maps(images, dtype)):
            backbone = make_tiny()
            freeze(backbone, "all")
            runs.append(fit(images, steps, backbone, maps=maps))
        np.testing.assert_allclose(runs[1][2], runs[0][2], rtol=tolerance, atol=tolerance / 50)
        if not tolerance:
            assert same_weights(runs[1][0], runs[0][0])
            assert same_weights(runs[1][1], runs[0][1])
        assert same_weights(runs[1][0].backbone.trunk, make_tiny().trunk)

    def test_bfloat16_comes_close(self, images):
        _, _, exact = fit(images, 1)
        _, _, losses = fit(images, 1, precision="bfloat16")
        np.testing.assert_allclose(losses[:, [0, 2]], exact[:, [0, 2]], rtol=0.03)


class TestOddImages:
    """Training on them gives finite numbers."""

    def fit_one(self, make_record, boxes, size, shorter, difficult=False, ignored=False):
        height, width = size
        record = make_record("a", boxes, [0] * len(boxes), height, width)
        record = replace(record, difficult=np.full(len(boxes), difficult), ignored=np.full(len(boxes), ignored))
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        scaling = Scaling.of(height, width, shorter, 1000)
        model, rpn, losses = fit(([record], [pixels]), 3, scaling=scaling, images_a_step=1, mirror=False)
        assert np.isfinite(losses).all()
        for module in (model, rpn):
            assert all(torch.isfinite(value).all() for value in module.state_dict().values())
        return losses

    def test_without_objects(self, make_record):
        losses = self.fit_one(make_record, [], (HEIGHT, WIDTH), 60)
        assert (losses[:, [0, 2]] > 0).all()
        assert (losses[:, [1, 3]] == 0).all()

    def test_with_difficult_objects_alone(self, make_record):
        """They are no background, and there is no other image to train on."""
        with pytest.raises(PipelineError, match="their objects are all marked difficult"):
            self.fit_one(make_record, [[5, 5, 30, 30]], (HEIGHT, WIDTH), 60, difficult=True)

    def test_with_regions_to_ignore_alone(self, make_record):
        """A part of the image gives background; where all of it is to be ignored there is nothing to learn."""
        assert (self.fit_one(make_record, [[5, 5, 30, 30]], (HEIGHT, WIDTH), 60, ignored=True)[:, [1, 3]] == 0).all()
        assert (self.fit_one(make_record, [[0, 0, WIDTH, HEIGHT]], (HEIGHT, WIDTH), 60, ignored=True) == 0).all()

    def test_smaller_than_the_largest_anchor(self, make_record):
        assert (self.fit_one(make_record, [[2, 2, 20, 20]], (32, 40), 32)[:, 0] > 0).all()

    def test_with_objects_smaller_than_the_smallest_anchor(self, make_record):
        assert (self.fit_one(make_record, [[30, 30, 34, 33], [50, 20, 51, 21]], (HEIGHT, WIDTH), 60)[:, 1] > 0).all()

    def test_of_a_size_that_no_proposal_has(self, make_record):
        """Proposals have 16 pixels at least; the objects stay to train on."""
        losses = self.fit_one(make_record, [[2, 2, 12, 12]], (14, 80), 40)
        assert (losses[:, 2] > 0).all()

    def test_without_objects_or_proposals(self, make_record):
        losses = self.fit_one(make_record, [], (14, 80), 40)
        assert (losses[:, [2, 3]] == 0).all()


@pytest.mark.parametrize("hard", [None, HardExamples(8)])
def test_weights_of_classes_multiply_the_detectors_log_loss(images, hard):
    plain, weighted = (fit(images, 1, hard=hard, weights=weights)[2] for weights in (None, np.full(3, 3, np.float32)))
    np.testing.assert_allclose(weighted[:, 2], 3 * plain[:, 2], rtol=0.05)  # other regions may be the hardest
    np.testing.assert_allclose(weighted[:, :2], plain[:, :2])


class TestHardRegions:
    def losses(self, images, hard, num_proposals):
        """The losses of one image whose regions have scores by their place, and the regions that had gradients."""
        seen = []

        def of_regions(rois):
            place = torch.from_numpy(rois[:, 0].copy()).double()
            scores = torch.stack([torch.zeros_like(place), place / 20, torch.zeros_like(place)], dim=1)
            if torch.is_grad_enabled():
                seen.append(rois)
            return scores, torch.full((len(rois), 2, 4), 0.5, dtype=torch.float64)

        sampler = AnchorSampler(images[0], [SCALING] * 6, LAYOUT, mirror=False, images_a_step=1, seed=3)
        proposals = np.array([[x, 0, x + 4, 4] for x in range(num_proposals)], np.float32)
        choice = RegionChoice(hard=hard, sampling=replace(faster_rcnn.SAMPLING, background_overlaps=(0.0, 0.5)))
        regions = ImageRegions(sampler, 2, 3, choice)
        (turn,) = sampler.order.draw(0)
        losses = regions.losses(of_regions, turn, proposals, SCALING, CPU)
        return losses, seen[0], regions.candidates(turn, proposals), of_regions

    @pytest.mark.parametrize(("count", "num_proposals"), [(5, 20), (40, 20)])
    def test_the_hardest_are_trained_on(self, images, count, num_proposals):
        losses, trained, (boxes, labels, targets), of_regions = self.losses(
            images, HardExamples(count), num_proposals
        )
        rois = rois_of(boxes, SCALING)
        class_losses = torch.nn.functional.cross_entropy(of_regions(rois)[0], torch.from_numpy(labels), reduction="none").numpy()
        away = np.abs(0.5 - targets)
        box_losses = np.where(labels > 0, np.where(away < 1, away**2 / 2, away - 0.5).sum(axis=1), 0)
        rows = sorted(sorted(range(len(boxes)), key=lambda row: -(class_losses + box_losses)[row])[:count])
        np.testing.assert_array_equal(trained, rois[rows])
        assert len(rows) == min(count, num_proposals + 2)
        # Classes are averaged over the regions, the boxes' loss is divided by the number wanted.
        np.testing.assert_allclose(
            losses, [class_losses[rows].mean(), box_losses[rows].sum() / count], rtol=1e-6
        )

    @pytest.mark.exhaustive
    def test_faster_rcnn_learns_from_them(self, images):
        _, _, losses = fit(images, 40, hard=HardExamples(32))
        assert losses[-8:, 2].mean() < 0.7 * losses[:4, 2].mean()
        _, _, sampled = fit(images, 1)
        _, _, hard = fit(images, 1, hard=HardExamples(32))
        np.testing.assert_array_equal(hard[:, :2], sampled[:, :2])
        assert hard[0, 2] != sampled[0, 2]
