"""Regions to ignore are neither positives nor negatives in any training: by hand, and compared with data without them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.datasets.records import NO_CLASS, Split
from pipeline.fast_rcnn.sampling import RegionSampler, SamplingSettings, is_background, match
from pipeline.faster_rcnn.anchors import BACKGROUND, IGNORED, OBJECT, assign_targets
from pipeline.faster_rcnn.rpn_training import AnchorLayout, AnchorSampler, misfits, without_difficult
from pipeline.matching import on_ignored, trainable
from pipeline.networks.whole_images import Scaling, mirror_boxes
from pipeline.rcnn.box_regression import RegressorSettings, train_box_regressors
from pipeline.rcnn.features import join_regions
from pipeline.rcnn.svm import SvmSettings, train_svms
from pipeline.rcnn.windows import JitteredObjectSampler, label_windows
from tests.tiers import examples

THING, CROWD = [10, 10, 30, 30], [40, 0, 80, 60]  # in an image of 80 x 60
NEAR, FAR, CROSSING = [10, 10, 30, 26], [0, 40, 10, 50], [33, 10, 53, 30]  # of CROSSING 65 % is in the crowd,
LIMIT, INSIDE = [34, 10, 54, 30], [45, 10, 65, 30]  # of LIMIT exactly 70 %, and all of INSIDE
PROPOSALS = np.float32([NEAR, FAR, CROSSING, LIMIT, INSIDE, CROWD])
KEPT = np.float32([NEAR, FAR, CROSSING, LIMIT])


@pytest.fixture
def record(make_record):
    """An image with an object of class 1 and a crowd of class 0."""
    return replace(make_record("a", [CROWD, THING], [0, 1]), ignored=np.array([True, False]))


@pytest.fixture
def crowd(make_record):
    """An image with nothing but a region to ignore of no class."""
    return replace(make_record("c", [CROWD], [NO_CLASS]), ignored=np.array([True]))


class TestRule:
    def test_more_than_70_percent_of_a_box_in_one_region(self):
        assert on_ignored(PROPOSALS, np.float32([CROWD])).tolist() == [False, False, False, False, True, True]

    def test_parts_in_several_regions_do_not_add_up(self):
        halves = np.float32([[0, 0, 10, 20], [10, 0, 20, 20]])
        assert not on_ignored(np.float32([[0, 0, 20, 20]]), halves).any()

    def test_a_region_inside_a_box_does_not_matter(self):
        assert on_ignored(np.float32([[0, 0, 20, 20]]), np.float32([[5, 5, 15, 15]])).tolist() == [False]

    def test_without_regions_or_boxes(self):
        none = np.zeros((0, 4), np.float32)
        assert on_ignored(PROPOSALS, none).tolist() == [False] * 6
        assert on_ignored(none, PROPOSALS).tolist() == []

    def test_all_regions_of_an_image_whatever_their_class(self, record, crowd):
        np.testing.assert_array_equal(trainable(PROPOSALS, record), KEPT)
        np.testing.assert_array_equal(trainable(PROPOSALS, crowd), KEPT)


class TestWindows:
    def test_by_hand(self, record, crowd):
        windows = label_windows([record, crowd], lambda number: PROPOSALS)
        np.testing.assert_array_equal(windows.boxes, np.concatenate([[THING], KEPT, KEPT]))
        assert windows.labels.tolist() == [2, 2, 0, 0, 0, *[0] * 4]
        assert windows.image.tolist() == [0] * 5 + [1] * 4

    def test_a_classifier_sees_no_crops_of_them(self, record, crowd):
        sampler = JitteredObjectSampler(Split("train", ("x", "y"), (crowd, record)), seed=0)
        np.testing.assert_array_equal(sampler.objects.boxes, [THING])
        assert (sampler.objects.labels.tolist(), sampler.objects.image.tolist()) == ([1], [1])


class TestFastRCNN:
    def test_by_hand(self, record):
        matches = match(record, PROPOSALS, 0.5)
        np.testing.assert_array_equal(matches.boxes, [THING, *KEPT])
        assert matches.foreground.tolist() == [True, True, False, False, False]
        assert matches.label[:2].tolist() == [2, 2]
        lowest = SamplingSettings(background_overlaps=(0.0, 0.5))
        assert is_background(matches, lowest).tolist() == [False, False, True, True, True]

    def test_mirrored_too(self, record, crowd):
        """Half of the draws are mirrors; then the crowd is at the left."""
        of_image, all_kept = SamplingSettings(images=1, regions=8, background_overlaps=(0.0, 0.5)), set()
        sampler = RegionSampler([record, crowd], ("x", "y"), lambda number: PROPOSALS, 0, mirror=True, settings=of_image)
        for step in range(8):
            (sample,) = sampler.draw(step)
            boxes = mirror_boxes(sample.boxes, 80) if sample.mirrored else sample.boxes
            assert {tuple(box) for box in boxes.tolist()} <= {tuple(box) for box in [THING, *KEPT.tolist()]}
            all_kept.add((sample.number, sample.mirrored, len(boxes)))
        assert all_kept == {(0, False, 5), (0, True, 5), (1, False, 4), (1, True, 4)}
        assert sampler.examples.tolist() == [0, 2]  # the object and NEAR


class TestLinearModels:
    def rows(self, record):
        features = np.random.default_rng(0).random((1 + len(PROPOSALS), 6)).astype(np.float16)
        return join_regions(record, PROPOSALS).rows(features, 2)

    def test_rows_of_the_store(self, record, crowd):
        rows = self.rows(record)
        np.testing.assert_array_equal(rows.boxes, [THING, *PROPOSALS])
        assert rows.gt_labels.tolist() == [1, *[-1] * 6]
        np.testing.assert_allclose(rows.overlaps, [[0, 1], [0, 0.8], *[[0, 0]] * 3, [-1, -1], [-1, -1]])
        assert join_regions(crowd, PROPOSALS).boxes.tolist() == PROPOSALS.tolist()

    @pytest.fixture
    def store(self, stores, record, make_record):
        """The image with the crowd, and one that gives class 0 an object."""
        second = join_regions(make_record("b", [THING], [0]), KEPT[1:])
        second = second.rows(np.random.default_rng(1).random((4, 6)).astype(np.float16), 2)
        names = ("features", "boxes", "overlaps", "gt_labels", "difficult")
        images = [{name: getattr(rows, name) for name in names} for rows in (self.rows(record), second)]
        return stores.MemoryStore(("x", "y"), images, 6)

    def test_svms(self, store):
        trained = train_svms(store, 1.0, np.random.default_rng(0), SvmSettings(hard_threshold=-100, evict_threshold=-100))
        assert trained.num_positives.tolist() == [1, 1]
        negatives = {label: trained.hard_negatives[trained.hard_negatives[:, 0] == label, 1:].tolist() for label in (0, 1)}
        # For class 0 the object of class 1 and NEAR are negatives as well; rows 5 and 6 lie on the crowd.
        assert negatives[0] == [[0, row] for row in range(5)] + [[1, row] for row in (1, 2, 3)]
        assert negatives[1] == [[0, row] for row in (2, 3, 4)] + [[1, row] for row in range(4)]

    def test_box_regressors(self, store):
        """An object of class 1 in the middle of the crowd is an example itself; a proposal on it is none."""
        inside = np.float32([THING, INSIDE, [45, 10, 65, 29], NEAR])
        image = store.images[0]
        image["boxes"][:4], image["gt_labels"][:] = inside, [1, 1, -1, -1, -1, -1, -1]
        image["overlaps"][:4] = [[0, 1], [0, 1], [-1, -1], [0, 0.8]]
        for expected in (3, 4):
            regressors = train_box_regressors(store, 1.0, np.random.default_rng(0), RegressorSettings())
            assert regressors.num_examples.tolist() == [1, expected]  # of class 1: both objects and NEAR
            image["overlaps"][2] = [0, 0.95]


class TestAnchors:
    ANCHORS = np.float64([THING, NEAR, FAR, CROSSING, LIMIT, INSIDE, CROWD])

    def labels(self, objects, ignored):
        return assign_targets(self.ANCHORS, np.float32(objects).reshape(-1, 4), 60, 80, ignored=np.float32(ignored))[0].tolist()

    def test_no_background_on_a_region(self):
        assert self.labels([THING], [CROWD]) == [OBJECT, OBJECT, *[BACKGROUND] * 3, IGNORED, IGNORED]
        assert self.labels([THING], np.zeros((0, 4))) == [OBJECT, OBJECT, *[BACKGROUND] * 5]

    def test_an_object_among_a_crowd_keeps_its_anchors(self):
        assert self.labels([INSIDE], [CROWD])[-2:] == [OBJECT, IGNORED]

    def test_without_objects(self):
        assert self.labels([], [CROWD]) == [*[BACKGROUND] * 5, IGNORED, IGNORED]
        assert self.labels([], [[0, 0, 80, 60]]) == [IGNORED] * 7

    def test_difficult_objects_go_and_regions_to_ignore_stay(self, record):
        marked = replace(record, difficult=np.array([True, True]))
        kept = without_difficult(marked)
        assert (kept.boxes.tolist(), kept.ignored.tolist()) == ([CROWD], [True])

    def test_losses_know_regions_of_the_scaled_image(self, crowd):
        """The map has three cells by four, each with an anchor of 16 pixels; of those the crowd covers the right half."""
        scaling = Scaling.of(60, 80, 48, 1000)
        layout = AnchorLayout((1.0,), (1.0,))
        sampler = AnchorSampler([crowd], [scaling], layout, mirror=True, images_a_step=1, seed=0)
        anchors = np.array([[x, y, x + 16, y + 16] for y in (0, 16, 32) for x in (0, 16, 32, 48)], np.float64)
        for turn in (*sampler.order.draw(0), *sampler.order.draw(1)):  # the image and its mirror
            scores = torch.zeros(12, requires_grad=True)
            outputs = scores, torch.zeros(12, 4)
            losses = sampler.losses(FixedAnchors(anchors), outputs, turn, scaling, (3, 4))
            losses.sum().backward()
            is_trained = (scores.grad != 0).numpy().reshape(3, 4)
            expected = np.ones((3, 4), bool)
            expected[:, slice(0, 2) if turn.mirrored else slice(2, 4)] = False
            np.testing.assert_array_equal(is_trained, expected)

    def test_sizes_of_regions_are_none_of_objects(self, make_record):
        small = make_record("a", [[0, 0, 9, 9], [0, 0, 50, 50]], [0, 0], 480, 640)
        scaling, layout = Scaling.of(480, 640, 480, 1000), AnchorLayout((3.0,), (1.0,))
        assert misfits(layout, [small], [scaling]) == []
        (message,) = misfits(layout, [replace(small, ignored=np.array([False, True]))], [scaling])
        assert "all objects are smaller (9 pixels" in message


class FixedAnchors:
    """Stands for a proposal network whose anchors are given."""

    def __init__(self, anchors):
        self._anchors = anchors

    def anchors(self, *cells):
        return self._anchors


boxes_in_80_x_60 = st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(4, 20), st.integers(4, 20)).map(
    lambda drawn: [drawn[0], drawn[1], drawn[0] + drawn[2], drawn[1] + drawn[3]])
annotated = st.lists(st.tuples(boxes_in_80_x_60, st.integers(0, 2), st.booleans()), max_size=6)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(annotated, st.lists(boxes_in_80_x_60, max_size=12))
def test_trainings_see_what_they_see_without_the_regions_and_the_proposals_on_them(make_record, objects, proposals):
    boxes, labels, ignored = zip(*objects) if objects else ((), (), ())
    ignored, proposals = np.array(ignored, bool), np.float32(proposals).reshape(-1, 4)
    record = replace(make_record("a", boxes, labels), ignored=ignored)
    regions = [box for box, _, is_ignored in objects if is_ignored]
    plain = make_record("a", [box for box, _, out in objects if not out], [label for _, label, out in objects if not out])
    kept = np.float32([box for box in proposals.tolist() if not any(share(box, area) > 0.7 for area in regions)]).reshape(-1, 4)
    windows, expected = label_windows([record], [proposals].__getitem__), label_windows([plain], [kept].__getitem__)
    for name in ("boxes", "labels", "image"):
        np.testing.assert_array_equal(getattr(windows, name), getattr(expected, name))
    matches, expected = match(record, proposals, 0.5), match(plain, kept, 0.5)
    for name in ("boxes", "overlap", "label", "foreground", "target"):
        np.testing.assert_array_equal(getattr(matches, name), getattr(expected, name))
    rows = join_regions(record, proposals).rows(np.zeros((len(plain.boxes) + len(proposals), 1), np.float16), 3)
    trained = (rows.overlaps >= 0).all(axis=1)
    np.testing.assert_array_equal(rows.boxes[trained], np.concatenate([plain.boxes, kept]))
    assert (rows.overlaps[~trained] == -1).all()


def share(box, region):
    """How much of `box` lies in `region`, pixel by pixel."""
    pixels = [(x, y) for x in range(int(box[0]), int(box[2])) for y in range(int(box[1]), int(box[3]))]
    inside = [region[0] <= x < region[2] and region[1] <= y < region[3] for x, y in pixels]
    return sum(inside) / len(inside)
