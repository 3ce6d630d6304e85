"""What the losses of a region proposal network see of an image: anchors, samples, images without room for an anchor."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import boxes as box_algebra
from pipeline.errors import PipelineError
from pipeline.faster_rcnn.anchors import OBJECT, assign_targets, generate_anchors, grid_anchors, inside
from pipeline.faster_rcnn.rpn_training import (
    AnchorLayout,
    AnchorSampler,
    anchor_losses,
    anchors_that_fit,
    make_rpn,
    misfits,
    train_rpn,
    without_difficult,
)
from pipeline.networks.map_inputs import ImageDraw, MapInput
from pipeline.networks.training import Schedule, TrainingRun
from pipeline.networks.whole_images import Scaling
from pipeline.seeding import make_generator
from tests.pipeline.faster_rcnn.rpn_runs import CPU, HEIGHT, LAYOUT, SCALING, WIDTH, make_sampler, make_tiny
from tests.tiers import examples

pytestmark = pytest.mark.usefixtures("one_thread")

class TestAnchorLosses:
    ANCHORS = grid_anchors(np.array([[-8, -8, 24, 24], [0, 0, 16, 16.0]]), 6, 8, 16)
    OBJECTS = np.float32([[32, 16, 66, 52], [96, 64, 114, 79]])

    def slow(self, scores, deltas, seed):
        """Anchor by anchor, in NumPy."""
        labels, nearest = assign_targets(self.ANCHORS, self.OBJECTS, 96, 128)
        generator = np.random.default_rng(seed)
        objects, background = np.flatnonzero(labels == OBJECT), np.flatnonzero(labels == 0)
        positive = generator.choice(objects, min(128, len(objects)), replace=False)
        negative = generator.choice(background, min(256 - len(positive), len(background)), replace=False)
        total = np.zeros(2)
        for row in [*positive, *negative]:
            probability = 1 / (1 + np.exp(-scores[row]))
            total[0] -= np.log(probability if row in positive else 1 - probability)
        for row in positive:
            target = box_algebra.encode(self.ANCHORS[[row]], self.OBJECTS[nearest[[row]]].astype(np.float64))[0]
            size = np.abs(deltas[row] - target)
            total[1] += np.where(size < 1 / 9, 4.5 * size**2, size - 1 / 18).sum()
        return total / (len(positive) + len(negative)), len(positive), len(negative)

    def test_are_those_of_a_slow_version(self):
        rng = np.random.default_rng(1)
        scores, deltas = rng.normal(size=96).astype(np.float32), rng.normal(scale=0.3, size=(96, 4)).astype(np.float32)
        given = torch.from_numpy(scores), torch.from_numpy(deltas)
        losses = anchor_losses(*given, self.ANCHORS, self.OBJECTS, size=(96, 128), generator=np.random.default_rng(7))
        expected, positive, negative = self.slow(scores, deltas, 7)
        assert positive >= 2
        assert negative >= 20
        np.testing.assert_allclose(losses, expected, rtol=1e-5)

    @pytest.mark.parametrize("objects", [np.zeros((0, 4), np.float32), np.float32([[-90, -90, -80, -80]])])
    def test_without_an_object_in_reach_all_is_background(self, objects):
        scores, deltas = torch.zeros(96, requires_grad=True), torch.ones(96, 4, requires_grad=True)
        losses = anchor_losses(scores, deltas, self.ANCHORS, objects, size=(96, 128), generator=np.random.default_rng(0))
        assert losses.tolist() == pytest.approx([np.log(2), 0])
        losses.sum().backward()
        assert (deltas.grad == 0).all()
        assert scores.grad.sum() == pytest.approx(0.5)

    def test_in_an_image_without_room_for_an_anchor_there_is_nothing_to_learn(self):
        scores, deltas = torch.zeros(96, requires_grad=True), torch.ones(96, 4, requires_grad=True)
        losses = anchor_losses(scores, deltas, self.ANCHORS, self.OBJECTS, size=(10, 12), generator=np.random.default_rng(0))
        assert losses.tolist() == [0, 0]
        losses.sum().backward()
        assert (scores.grad == 0).all()

    def test_move_boxes_to_their_objects_where_they_are_zero(self):
        """Deltas that equal the targets have no loss, and take the anchors to the objects."""
        labels, nearest = assign_targets(self.ANCHORS, self.OBJECTS, 96, 128)
        targets = box_algebra.encode(self.ANCHORS, self.OBJECTS[nearest].astype(np.float64)).astype(np.float32)
        sure = torch.from_numpy(np.where(labels == OBJECT, 50, -50).astype(np.float32))
        given = sure, torch.from_numpy(targets), self.ANCHORS, self.OBJECTS
        losses = anchor_losses(*given, size=(96, 128), generator=np.random.default_rng(0))
        np.testing.assert_allclose(losses, [0, 0], atol=1e-6)


class TestSampler:
    def test_difficult_objects_are_left_out(self, make_record):
        record = make_record("a", [[0, 0, 30, 30], [40, 20, 70, 50]], [0, 1], HEIGHT, WIDTH)
        difficult = replace(record, difficult=np.array([True, False]))
        kept = without_difficult(difficult)
        assert (kept.boxes.tolist(), kept.labels.tolist(), kept.difficult.tolist()) == ([[40, 20, 70, 50]], [1], [False])
        alone = make_record("a", [[40, 20, 70, 50]], [1], HEIGHT, WIDTH)
        samplers = [make_sampler([image], mirror=False) for image in (difficult, alone, record)]
        rpn, turn, cells = make_rpn(make_tiny(), LAYOUT), ImageDraw(0, False, 0), (6, 8)
        rng = np.random.default_rng(0)
        outputs = [torch.from_numpy(rng.normal(size=size).astype(np.float32)) for size in (6 * 8 * 9, (6 * 8 * 9, 4))]
        losses = [sampler.losses(rpn, outputs, turn, SCALING, cells).tolist() for sampler in samplers]
        assert losses[0] == losses[1] != losses[2]

    def test_mirrored_turns_have_the_mirrored_objects(self, make_record):
        sampler = make_sampler([make_record("a", [[0, 5, 30, 25]], [0], HEIGHT, WIDTH)])
        assert sampler.record(ImageDraw(0, False, 0)).boxes.tolist() == [[0, 5, 30, 25]]
        assert sampler.record(ImageDraw(0, True, 0)).boxes.tolist() == [[50, 5, 80, 25]]

    def test_loss_is_that_of_the_objects_in_the_scaled_image_by_the_generator_of_the_place(self, make_record):
        record = make_record("a", [[0, 5, 30, 25]], [0], HEIGHT, WIDTH)
        sampler, rpn = make_sampler([record], seed=11), make_rpn(make_tiny(), LAYOUT)
        rng = np.random.default_rng(0)
        scores, deltas = (torch.from_numpy(rng.normal(size=size)) for size in (6 * 8 * 9, (6 * 8 * 9, 4)))
        losses = sampler.losses(rpn, (scores, deltas), ImageDraw(0, True, 5), SCALING, (6, 8))
        mirrored = np.float32([[50, 5, 80, 25]]) * 1.5
        generator = make_generator(11, "anchors", 5)
        expected = anchor_losses(scores, deltas, rpn.anchors(6, 8), mirrored, size=(90, 120), generator=generator)
        np.testing.assert_array_equal(losses, expected)
        another = sampler.losses(rpn, (scores, deltas), ImageDraw(0, True, 6), SCALING, (6, 8))
        assert not torch.equal(another, losses)

    def test_images_without_room_for_an_anchor_are_counted_and_never_drawn(self, make_record):
        records = [make_record(str(number), [[0, 0, 9, 9]], [0]) for number in range(3)]
        scalings = [SCALING, Scaling((10, 10), (1.0, 1.0)), SCALING]
        sampler = AnchorSampler(records, scalings, LAYOUT, mirror=True, images_a_step=2, seed=0)
        assert sampler.num_usable == 2
        assert {turn.number for step in range(8) for turn in sampler.order.draw(step)} == {0, 2}

    def test_images_without_objects_are_drawn(self, make_record):
        sampler = make_sampler([make_record("a"), make_record("b", [[0, 0, 30, 30]], [0])], mirror=False)
        assert sorted(turn.number for turn in sampler.order.draw(0)) == [0, 1]

    def test_images_with_difficult_objects_alone_are_never_drawn(self, make_record):
        two = [[0, 0, 30, 30], [40, 20, 70, 50]]
        records = [make_record(str(number), two, [0, 1], HEIGHT, WIDTH) for number in range(3)]
        marks = [False, False], [True, True], [True, False]
        records = [replace(record, difficult=np.array(mark)) for record, mark in zip(records, marks, strict=True)]
        sampler = make_sampler(records)
        assert sampler.num_usable == 2
        assert {turn.number for step in range(8) for turn in sampler.order.draw(step)} == {0, 2}
        with pytest.raises(PipelineError, match="none of the 1 training images can train the proposal network: their"):
            make_sampler(records[1:2])


class TestMisfits:
    """What of the anchors' shapes does not suit the images; sides here are 16, 32 and 48 pixels."""

    LAYOUT = AnchorLayout((1.0, 2.0, 3.0), (1.0,))

    def find(self, records, *sizes, layout=LAYOUT):
        scalings = [Scaling(size, (1.0, 1.0)) for size in sizes or [(60, 80)] * len(records)]
        return misfits(layout, records, scalings)

    def test_none(self, make_record):
        assert self.find([make_record("a", [[0, 0, 20, 20]], [0]), make_record("b")]) == []

    def test_sides(self):
        assert LAYOUT.sides[0].tolist() == [23, 12]
        assert self.LAYOUT.sides.tolist() == [[16, 16], [32, 32], [48, 48]]

    def test_images_smaller_than_the_largest_anchor(self, make_record):
        messages = self.find([make_record("a", [[0, 0, 20, 20]], [0])] * 2, (40, 80), (80, 40))
        assert messages == ["anchors of 48 x 48 pixels fit into no scaled image and learn nothing; lower --anchor-scales"]

    def test_one_image_with_room_is_enough(self, make_record):
        assert self.find([make_record("a", [[0, 0, 20, 20]], [0])] * 2, (40, 80), (60, 80)) == []

    def test_no_image_with_room_for_any_anchor_is_refused(self, make_record):
        with pytest.raises(PipelineError) as caught:
            self.find([make_record("a", [[0, 0, 9, 9]], [0])] * 2, (15, 80), (12, 15))
        assert str(caught.value) == (
            "no anchor (16 x 16, 32 x 32, 48 x 48 pixels) fits into any scaled image (80 x 15 at most): "
            "lower --anchor-scales, or raise --fast-scale"
        )

    @pytest.mark.parametrize(("side", "fits"), [(32, False), (39, False), (40, True)])
    def test_room_is_where_a_cell_has_one(self, side, fits):
        """Anchors of 32 pixels are centred at 8, 24, 40, ...: the first that does not reach out on the left ends at 40."""
        assert anchors_that_fit(AnchorLayout((2.0,), (1.0,)), [Scaling((side, 90), (1.0, 1.0))]).tolist() == [[fits]]
        assert anchors_that_fit(AnchorLayout((2.0,), (1.0,)), [Scaling((90, side), (1.0, 1.0))]).tolist() == [[fits]]

    @settings(max_examples=examples(100), deadline=None)
    @given(st.integers(8, 120), st.integers(8, 120), st.floats(0.25, 6), st.floats(0.2, 5))
    def test_room_is_where_an_anchor_of_the_grid_is_inside(self, height, width, scale, ratio):
        layout = AnchorLayout((scale,), (ratio,))
        anchors = grid_anchors(generate_anchors((scale,), (ratio,)), 9, 9, 16)
        fits = anchors_that_fit(layout, [Scaling((height, width), (1.0, 1.0))])
        assert fits.tolist() == [[inside(anchors, height, width).any()]]

    def test_objects_smaller_than_the_smallest_anchor(self, make_record):
        messages = self.find([make_record("a", [[0, 0, 15, 15], [0, 0, 4, 9]], [0, 1]), make_record("b", [[0, 0, 5, 20]], [0])])
        assert messages == [
            "all objects are smaller (15 pixels at most in scaled images) than the smallest anchor (16); lower --anchor-scales, "
            "or raise --fast-scale"
        ]

    def test_objects_larger_than_the_largest_anchor(self, make_record):
        messages = self.find([make_record("a", [[0, 0, 60, 50]], [0])])
        assert messages == [
            "all objects are larger (55 pixels and more in scaled images) than the largest anchor (48); raise --anchor-scales, "
            "or lower --fast-scale"
        ]

    def test_objects_are_measured_in_scaled_images(self, make_record):
        record = make_record("a", [[0, 0, 15, 15]], [0])
        assert misfits(self.LAYOUT, [record], [Scaling((90, 120), (1.5, 1.5))]) == []
        (message,) = misfits(self.LAYOUT, [make_record("a", [[0, 0, 20, 20]], [0])], [Scaling((60, 80), (0.5, 0.5))])
        assert "all objects are smaller (10 pixels" in message

    def test_without_objects_there_is_nothing_to_say_of_them(self, make_record):
        assert self.find([make_record("a")]) == []


class TestOddImages:
    """Training on them gives finite numbers."""

    def fit_one(self, make_record, boxes, size, shorter, layout=LAYOUT, steps=3):
        height, width = size
        record = make_record("a", boxes, [0] * len(boxes), height, width)
        scaling = Scaling.of(height, width, shorter, 1000)
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        sampler = make_sampler([record], scaling, mirror=False, images_a_step=1, layout=layout)

        def inputs(samples):
            return (MapInput(pixels, None, scaling) for _ in samples)

        rpn, losses = train_rpn(
            make_tiny(), TrainingRun(Schedule(steps, 0.01, steps), 0, CPU), sampler=sampler, layout=layout, inputs=inputs
        )
        assert np.isfinite(losses).all()
        assert all(torch.isfinite(value).all() for value in rpn.state_dict().values())
        return losses

    def test_an_image_smaller_than_the_largest_anchor(self, make_record):
        losses = self.fit_one(make_record, [[2, 2, 20, 20]], (32, 40), 32)
        assert (losses > 0).all()

    def test_an_image_without_objects(self, make_record):
        losses = self.fit_one(make_record, [], (HEIGHT, WIDTH), 60)
        assert (losses[:, 0] > 0).all()
        assert (losses[:, 1] == 0).all()

    def test_objects_smaller_than_the_smallest_anchor_have_their_best_anchors(self, make_record):
        losses = self.fit_one(make_record, [[30, 30, 34, 33], [50, 20, 51, 21]], (HEIGHT, WIDTH), 60)
        assert (losses > 0).all()

    def test_a_flat_object_that_no_anchor_fits_is_learned(self, make_record):
        losses = self.fit_one(make_record, [[20, 30, 76, 36]], (HEIGHT, WIDTH), 60, steps=40)
        assert losses[-4:, 1].mean() < 0.3 * losses[0, 1]

    def test_an_object_that_overlaps_no_anchor_inside(self, make_record):
        """Anchors of 32 pixels in an image of 48 x 40 lie in x from 8 to 40."""
        losses = self.fit_one(make_record, [[41, 0, 47, 6]], (40, 48), 40, AnchorLayout((2.0,), (1.0,)))
        assert (losses[:, 1] == 0).all()
        assert (losses[:, 0] > 0).all()

    def test_an_image_of_a_single_cell(self, make_record):
        losses = self.fit_one(make_record, [[0, 0, 16, 16]], (16, 16), 16, AnchorLayout((1.0,), (1.0,)))
        assert (losses[:, 0] > 0).all()
