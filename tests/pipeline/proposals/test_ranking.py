import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.boxes import iou
from pipeline.proposals.ranking import MIN_SIDE, MaxOverlap, merge_hierarchies, select_boxes

SIZE = 100, 120


class FixedDraw:
    """Stands for a generator whose random numbers are known."""

    def __init__(self, values):
        self.values = np.array(values)

    def random(self, size):
        assert size == len(self.values)
        return self.values


def test_hierarchies_merge_by_position_from_the_last_times_a_random_number():
    first = np.array([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]], float)
    second = np.array([[0, 0, 4, 4], [0, 0, 5, 5]], float)
    # Priorities: 3 x 0.5, 2 x 0.5, 1 x 0.5; 2 x 0.1, 1 x 0.9.
    merged = merge_hierarchies([first, second], FixedDraw([0.5, 0.5, 0.5, 0.1, 0.9]))
    assert merged[:, 2].tolist() == [4, 3, 5, 2, 1]


def test_no_hierarchy_and_an_empty_one_merge_to_nothing():
    generator = np.random.default_rng(0)
    assert merge_hierarchies([], generator).shape == (0, 4)
    assert merge_hierarchies([np.zeros((0, 4))], generator).shape == (0, 4)


def test_boxes_are_selected_in_order_without_short_sides_and_repetitions():
    boxes = np.array([
        [5, 5, 30, 30], [0, 0, 19, 50], [0, 0, 20, 20], [5, 5, 30, 30], [0, 0, 50, 19], [0, 0, 40, 40], [1, 0, 40, 40],
    ])
    selected = select_boxes(boxes, SIZE, 3)
    assert selected.dtype == np.float32
    assert selected.tolist() == [[5, 5, 30, 30], [0, 0, 20, 20], [0, 0, 40, 40]]


def test_all_boxes_are_taken_unless_told_otherwise():
    boxes = np.array([[0, 0, 20 + i, 20] for i in range(50)])
    assert np.array_equal(select_boxes(boxes, SIZE), boxes)
    assert len(select_boxes(boxes, SIZE, min_side=1)) == 50
    assert len(select_boxes(boxes, SIZE, min_side=21)) == 0


def test_boxes_are_cut_at_the_border_before_their_sides_are_measured():
    boxes = np.array([[-5, -5, 30, 40], [0, 0, 30, 40], [110, 0, 140, 30], [100, 80, 300, 300]])
    assert select_boxes(boxes, SIZE).tolist() == [[0, 0, 30, 40], [100, 80, 120, 100]]


@pytest.mark.parametrize(("limit", "expected"), [(0.5, [0, 2]), (0.51, [0, 2, 3]), (0.81, [0, 1, 2, 3]), (1, [0, 1, 2, 3])])
def test_boxes_near_a_more_wanted_one_are_left_out(limit, expected):
    # IoU with the first: 0.8; 0; with the first, 2 / 4 and more than a half of nothing else that stays.
    boxes = np.array([[0, 0, 40, 40], [0, 0, 40, 50], [60, 60, 100, 100], [0, 0, 40, 79]])
    assert select_boxes(boxes, SIZE, near=MaxOverlap(limit, 20, limit, 300)).tolist() == boxes[expected].tolist()


def test_small_boxes_must_lie_farther_apart_than_large_ones():
    # Pairs of sides 20 and 80: IoU 0.8 in each.
    boxes = np.array([[0, 0, 20, 20], [0, 0, 20, 25], [30, 0, 110, 64], [30, 0, 110, 80]])
    for small, large, expected in ((0.79, 0.81, [0, 2, 3]), (0.81, 0.79, [0, 1, 2]), (0.81, 0.81, [0, 1, 2, 3])):
        selected = select_boxes(boxes, SIZE, near=MaxOverlap(small, 24, large, 76))
        assert selected.tolist() == boxes[expected].tolist()
    # In between, the limit lies in between: at a side of 50, half-way.
    pair = np.array([[0, 0, 50, 40], [0, 0, 50, 50]])
    assert len(select_boxes(pair, SIZE, near=MaxOverlap(0.7, 20, 0.88, 80))) == 1
    assert len(select_boxes(pair, SIZE, near=MaxOverlap(0.7, 20, 0.92, 80))) == 2


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(0, 400), st.sampled_from([0.201, 0.5003, 0.803, 0.9507]), st.sampled_from([1, 5, None]))
def test_boxes_apart_agree_with_a_slow_version(seed, count, limit, most):
    generator = np.random.default_rng(seed)
    corner = generator.integers(0, 40, (count, 2))
    boxes = np.concatenate([corner, corner + generator.integers(MIN_SIDE, 60, (count, 2))], axis=1).astype(np.float32)
    kept = []
    for box in boxes:
        overlaps = iou(box[None], np.array(kept).reshape(-1, 4))
        if overlaps.max(initial=0) <= limit:
            kept.append(box)
    expected = np.array(kept[:most]).reshape(-1, 4)
    selected = select_boxes(boxes, SIZE, most, near=MaxOverlap(limit, 1, limit, 2))
    assert selected.tolist() == expected.tolist()
