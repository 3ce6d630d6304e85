"""Anchors: the published table, and what each is trained to say, by hand, against a slow version and as the release has it."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline import boxes as box_algebra
from pipeline.faster_rcnn.anchors import (
    BACKGROUND,
    IGNORED,
    OBJECT,
    AnchorSettings,
    assign_targets,
    generate_anchors,
    grid_anchors,
    inside,
    sample_anchors,
)
from tests.tiers import examples

EXCLUSIVE = [0, 0, 1, 1]
NONE = np.zeros((0, 4), np.float32)
# In the comment of generate_anchors.py: 1-based inclusive corners.
PUBLISHED = np.array([
    [-83, -39, 100, 56], [-175, -87, 192, 104], [-359, -183, 376, 200],
    [-55, -55, 72, 72], [-119, -119, 136, 136], [-247, -247, 264, 264],
    [-35, -79, 52, 96], [-79, -167, 96, 184], [-167, -343, 184, 360],
])


def overlap_of(anchor, box) -> Fraction:
    """IoU of two boxes with whole corners, exactly."""
    width = max(0, min(anchor[2], box[2]) - max(anchor[0], box[0]))
    height = max(0, min(anchor[3], box[3]) - max(anchor[1], box[1]))
    union = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (anchor, box)) - width * height
    return Fraction(int(width * height), int(union))


class TestAnchorsOfACell:
    def test_are_the_published_table(self):
        np.testing.assert_array_equal(generate_anchors(), PUBLISHED + np.array([-1, -1, 0, 0]))

    @pytest.mark.parametrize("variant", range(6))
    def test_are_the_releases_for_other_settings(self, oracle, variant):
        data = oracle("anchors.npz")
        scales, ratios, base = (data[f"{name}_{variant}"] for name in ("scales", "ratios", "base_size"))
        anchors = generate_anchors(scales, ratios, int(base))
        np.testing.assert_allclose(anchors, data[f"anchors_{variant}"] + EXCLUSIVE, atol=1e-9)
        assert anchors.dtype == np.float64

    def test_keep_their_centre_and_about_their_area(self):
        anchors = generate_anchors((1.5, 4.0), (0.25, 1.0, 3.0))
        np.testing.assert_allclose((anchors[:, :2] + anchors[:, 2:]) / 2, 8)
        np.testing.assert_allclose(box_algebra.area(anchors), np.tile([24**2, 64**2], 3), rtol=0.06)

    def test_sides_are_rounded_half_to_even(self):
        """Of 9 x 9: 6.5 wide, so 6, then 12 high."""
        sides = generate_anchors((1.0,), (81 / 6.5**2,), 9)[0]
        assert (sides[2:] - sides[:2]).tolist() == [6, 12]  # 6 * 1.917 = 11.5


class TestAnchorsOfAMap:
    def test_are_those_of_the_release_in_its_order(self, oracle):
        data = oracle("anchors.npz")
        anchors = grid_anchors(generate_anchors(), *(int(data[f"grid_{name}"]) for name in ("height", "width", "stride")))
        np.testing.assert_array_equal(anchors, data["grid_anchors"] + EXCLUSIVE)

    def test_by_hand(self):
        base = np.array([[-4, -4, 12, 12], [0, 0, 8, 4]])
        rows = [[x + a, y + b, x + c, y + d] for y in (0, 10) for x in (0, 10, 20) for a, b, c, d in base.tolist()]
        assert grid_anchors(base, 2, 3, 10).tolist() == rows
        assert grid_anchors(base, 0, 3, 10).shape == (0, 4)

    def test_inside_counts_edges_that_touch_the_images(self):
        outside = [[-0.5, 0, 9, 9], [0, -0.5, 9, 9], [70, 50, 80.5, 60], [70, 50, 80, 60.5]]
        anchors = np.array([[0, 0, 80, 60], *outside, [3, 4, 5, 6]])
        assert inside(anchors, 60, 80).tolist() == [True, False, False, False, False, True]
        assert inside(NONE, 60, 80).tolist() == []


class TestTargets:
    @pytest.mark.parametrize("suffix", ["", "_default"])
    def test_are_those_of_the_release(self, oracle, suffix):
        data = oracle("anchor_targets.npz")
        objects = data["gt_boxes"] + np.float32(EXCLUSIVE)
        anchors = grid_anchors(data[f"base_anchors{suffix}"] + EXCLUSIVE, *data["feature_size"], int(data["stride"]))
        np.testing.assert_array_equal(inside(anchors, *data["image_size"]), data[f"inside{suffix}"])
        labels, nearest = assign_targets(anchors, objects, *data["image_size"])
        np.testing.assert_array_equal(labels, data[f"labels{suffix}"])
        positive = np.flatnonzero(labels == OBJECT)
        np.testing.assert_array_equal(positive, data[f"positive{suffix}"])
        np.testing.assert_array_equal(nearest[positive], data[f"positive_gt{suffix}"])
        targets = box_algebra.encode(anchors[positive], objects[nearest[positive]].astype(np.float64))
        np.testing.assert_allclose(targets, data[f"positive_targets{suffix}"], atol=1e-5)
        rows = data[f"inside{suffix}"]
        largest = box_algebra.iou(anchors[rows], objects).max(axis=1)
        np.testing.assert_allclose(largest, data[f"max_iou{suffix}"][rows], atol=1e-6)

    def test_sampled_numbers_are_those_of_the_release(self, oracle):
        data = oracle("anchor_targets.npz")
        assert tuple(map(len, sample_anchors(data["labels"], np.random.default_rng(0)))) == tuple(data["sampled_counts"])
        assert data["sampled_counts"].tolist() == [11, 245]

    def test_by_hand(self):
        """Of one object: IoU 1, 0.7, 0.69, 0.3, 0.29, 0; and one that reaches out of the image."""
        anchors = np.array([[0, 0, 10, bottom] for bottom in (10, 7, 6.9, 3, 2.9)] + [[20, 20, 30, 30], [-1, 0, 10, 10]])
        labels, nearest = assign_targets(anchors, np.float32([[0, 0, 10, 10]]), 60, 80)
        assert labels.tolist() == [OBJECT, OBJECT, IGNORED, IGNORED, BACKGROUND, BACKGROUND, IGNORED]
        assert nearest.tolist() == [0] * 7
        assert (labels.dtype, nearest.dtype) == (np.int8, np.int64)

    def test_thresholds_can_be_others(self):
        anchors = np.array([[0, 0, 10, bottom] for bottom in (10, 6, 5, 4, 1)])
        changed = AnchorSettings(object_overlap=0.6, background_overlap=0.45)
        labels, _ = assign_targets(anchors, np.float32([[0, 0, 10, 10]]), 60, 80, changed)
        assert labels.tolist() == [OBJECT, OBJECT, IGNORED, BACKGROUND, BACKGROUND]

    def test_an_objects_best_anchors_are_objects_however_little_they_overlap_it(self):
        """All anchors that tie for the best are positives, even where their IoU would make them background."""
        anchors = np.array([[0, 0, 10, 10], [10, 0, 20, 10], [20, 0, 30, 10], [0, 20, 10, 30]])
        labels, nearest = assign_targets(anchors, np.float32([[9, 0, 11, 10], [0, 20, 10, 30]]), 60, 80)
        assert labels.tolist() == [OBJECT, OBJECT, BACKGROUND, OBJECT]
        assert nearest[[0, 1, 3]].tolist() == [0, 0, 1]

    def test_a_forced_anchor_goes_to_the_object_that_it_overlaps_most(self):
        """The first anchor is the best that object 1 has, but overlaps object 0 more."""
        anchors = np.array([[0, 0, 10, 10], [0, 0, 10, 8]])
        objects = np.float32([[0, 0, 10, 8], [0, 8, 10, 10]])
        labels, nearest = assign_targets(anchors, objects, 60, 80)
        assert labels.tolist() == [OBJECT, OBJECT]
        assert nearest.tolist() == [0, 0]

    def test_of_objects_overlapped_alike_the_first_counts(self):
        _, nearest = assign_targets(np.array([[2, 0, 12, 10]]), np.float32([[0, 0, 10, 10], [4, 0, 14, 10]]), 60, 80)
        assert nearest.tolist() == [0]

    def test_ties_are_not_broken_by_rounding(self):
        """The same shares of an object at corners that are no binary fractions."""
        corners = np.arange(60)[:, None] * [0.7, 0.3]
        anchors = np.concatenate([corners, corners + np.array([10.1, 9.9])], axis=1)
        for start in range(0, 60, 7):
            moved = anchors[start] + [3.3, 0, 3.3, 0], anchors[start] + [-3.3, 0, -3.3, 0]
            labels, _ = assign_targets(np.array(moved), anchors[[start]], 60, 100)
            both = inside(np.array(moved), 60, 100)
            assert (labels[both] == OBJECT).all()

    def test_an_object_that_no_anchor_inside_overlaps_has_none(self):
        anchors = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [55, 35, 85, 65]])
        labels, _ = assign_targets(anchors, np.float32([[60, 40, 80, 60]]), 60, 80)
        assert labels.tolist() == [BACKGROUND, BACKGROUND, IGNORED]

    def test_without_objects_all_inside_are_background(self):
        labels, nearest = assign_targets(np.array([[0, 0, 10, 10], [-5, 0, 10, 10]]), NONE, 60, 80)
        assert labels.tolist() == [BACKGROUND, IGNORED]
        assert nearest.tolist() == [0, 0]

    @pytest.mark.parametrize("objects", [NONE, np.float32([[0, 0, 9, 9]])])
    def test_no_anchor_inside(self, objects):
        for anchors in (np.array([[-5, 0, 10, 10]]), np.zeros((0, 4))):
            labels, nearest = assign_targets(anchors, objects, 60, 80)
            assert labels.tolist() == [IGNORED] * len(anchors)
            assert nearest.tolist() == [0] * len(anchors)

    @settings(max_examples=examples(60), deadline=None)
    @given(st.integers(0, 10**6))
    def test_are_those_of_a_slow_version(self, seed):
        """Anchor by anchor in exact fractions; whole corners, so that there are ties."""
        rng = np.random.default_rng(seed)
        base = np.array([[-4, -4, 8, 8], [-2, -6, 6, 10], [0, 0, 4, 4]])
        anchors = grid_anchors(base, 4, 5, 4)
        corner = rng.integers(0, 16, (rng.integers(0, 4), 2))
        objects = np.concatenate([corner, corner + rng.integers(1, 14, corner.shape)], axis=1).astype(np.float32)
        labels, nearest = assign_targets(anchors, objects, 18, 22)
        is_inside = [x1 >= 0 and y1 >= 0 and x2 <= 22 and y2 <= 18 for x1, y1, x2, y2 in anchors]
        overlaps = [[overlap_of(anchor, box) for box in objects] for anchor in anchors]
        best = [max(row[number] for row, valid in zip(overlaps, is_inside) if valid) for number in range(len(objects))]
        for row, (valid, shares) in enumerate(zip(is_inside, overlaps)):
            forced = any(share == limit > 0 for share, limit in zip(shares, best))
            largest = max(shares, default=Fraction(0))
            if not valid:
                expected = IGNORED
            elif forced or largest >= Fraction(7, 10):
                expected = OBJECT
            else:
                expected = BACKGROUND if largest < Fraction(3, 10) else IGNORED
            assert labels[row] == expected
            if expected == OBJECT:
                assert nearest[row] == shares.index(largest)


class TestSample:
    @pytest.mark.parametrize(
        ("objects", "backgrounds", "expected"),
        [(11, 2000, (11, 245)), (128, 2000, (128, 128)), (500, 2000, (128, 128)), (500, 40, (128, 40)), (0, 2000, (0, 256)),
         (3, 2, (3, 2)), (300, 0, (128, 0)), (0, 0, (0, 0))],
    )
    def test_half_are_objects_at_most_and_backgrounds_fill_up(self, objects, backgrounds, expected):
        labels = np.array([OBJECT] * objects + [BACKGROUND] * backgrounds + [IGNORED] * 50, np.int8)
        labels = np.random.default_rng(1).permutation(labels)
        sampled = sample_anchors(labels, np.random.default_rng(0))
        assert tuple(map(len, sampled)) == expected
        for rows, label in zip(sampled, (OBJECT, BACKGROUND), strict=True):
            assert (labels[rows] == label).all()
            assert len(np.unique(rows)) == len(rows)

    def test_other_sizes(self):
        labels = np.array([OBJECT] * 20 + [BACKGROUND] * 20, np.int8)
        sampled = sample_anchors(labels, np.random.default_rng(0), AnchorSettings(sampled=16, object_fraction=0.25))
        assert tuple(map(len, sampled)) == (4, 12)

    def test_every_anchor_is_as_likely(self):
        labels = np.array([OBJECT] * 200 + [BACKGROUND] * 400, np.int8)
        generator = np.random.default_rng(3)
        draws = [sample_anchors(labels, generator) for _ in range(200)]
        for part, number in ((0, 200), (1, 400)):
            counts = np.unique(np.concatenate([draw[part] for draw in draws]), return_counts=True)[1]
            assert len(counts) == number
            assert stats.chisquare(counts).pvalue > 1e-3
