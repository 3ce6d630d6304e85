"""The limits of detection: what they keep, and that what they leave out is counted."""

import numpy as np
import pytest

from pipeline.boxes import nms
from pipeline.detection.candidates import MAX_PER_IMAGE, MEAN_PER_IMAGE, select_detections, top_scoring
from tests.pipeline.detection.samples import random_boxes


def grid(columns=18, rows=10, step=24, side=17):
    """Boxes side by side: 180 objects, as in an image of cells or of goods on a shelf."""
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    corner = np.stack([x, y], axis=-1).reshape(-1, 2) * step
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


@pytest.fixture
def dense():
    """Scores and boxes of five regions on each of 180 objects, and 100 of the background."""
    generator = np.random.default_rng(0)
    boxes = np.concatenate([np.repeat(grid(), 5, axis=0) + generator.uniform(-1, 1, (900, 4)), grid()[:100] + 1000])
    scores = np.concatenate([generator.uniform(0.5, 1, 900), generator.uniform(-1, 0, 100)])
    return scores[:, None], boxes.astype(np.float32)


def test_no_object_of_a_dense_image_is_lost_without_limits(dense):
    top = top_scoring(*dense, max_per_image=0)
    assert np.count_nonzero(top.survives & (top.score > 0.5)) == 180
    assert top.left_out == (0, 0, 0)
    assert len(select_detections([top], "a", ["cell"])) == 280


def test_the_releases_limits_lose_most_of_them_and_say_how_many(dense):
    top = top_scoring(*dense)
    assert len(top.score) == MAX_PER_IMAGE == 100
    assert top.left_out == (0, 900, 0)
    selected = select_detections([top], "a", ["cell"], MEAN_PER_IMAGE)
    assert len(selected) <= 40


def test_the_best_detections_of_all_classes_stay():
    scores = np.array([[5, 4.5], [3, -1], [2, 1], [0, 2.5]])
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]])
    top = top_scoring(scores, boxes, max_detections=4)
    assert top.score[top.survives].tolist() == [5, 3, 4.5, 2.5]
    assert top.left_out == (0, 0, 4)
    assert len(top.score) == 8


def test_suppressed_candidates_take_no_place_among_the_detections():
    boxes = np.tile(np.float32([[0, 0, 10, 10]]), (3, 1))
    boxes[2] += 50
    top = top_scoring(np.array([[3.0], [2.0], [1.0]]), boxes, max_detections=2)
    assert top.survives.tolist() == [True, False, True]
    assert top.left_out.detections == 0


@pytest.mark.parametrize("limit", [0, 5, 6, 7])
def test_a_limit_that_is_just_reached_leaves_out_nothing(limit):
    top = top_scoring(np.arange(6.0)[:, None], grid()[:6], max_per_image=limit, max_detections=limit)
    assert top.left_out == ((0, 1, 0) if limit == 5 else (0, 0, 0))


def test_as_in_a_slow_version():
    """Suppression of all regions, class by class; then the best of all classes (`test.py` of rbgirshick/py-faster-rcnn)."""
    generator = np.random.default_rng(1)
    scores, boxes = generator.normal(size=(60, 3)).astype(np.float32), random_boxes(generator, 60, 3)
    scores[generator.random((60, 3)) < 0.2] = -np.inf
    kept = [(scores[row, label], label) for label in range(3) for row in nms(boxes[:, label], scores[:, label], 0.3)
            if scores[row, label] > -np.inf]
    best = sorted(kept, reverse=True)[:20]
    top = top_scoring(scores, boxes, max_per_image=0, max_detections=20)
    assert sorted(zip(top.score[top.survives], top.class_index[top.survives]), reverse=True) == best
    assert top.left_out.detections == len(kept) - 20 > 0
    assert top.left_out.candidates == 0


def test_what_the_split_s_limit_does_not_need_is_not_kept(dense):
    top = top_scoring(*dense, max_per_image=0, max_detections=150)
    less = top.without_suppressed()
    assert len(less.score) == 150
    assert less.survives.all()
    assert less.left_out == top.left_out == (0, 0, 130)
    np.testing.assert_array_equal(less.boxes, top.boxes[top.survives])
    first, second = (select_detections([candidates], "a", ["cell"]) for candidates in (top, less))
    np.testing.assert_array_equal(first.boxes, second.boxes)
