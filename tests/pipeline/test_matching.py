"""Matching boxes to objects: by hand, against a loop, and at the thresholds themselves."""

import numpy as np

from pipeline.boxes import iou
from pipeline.matching import match_boxes

OBJECTS = np.float32([[0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 8]])


def test_nearest_and_largest_by_hand():
    boxes = np.float32([[0, 0, 10, 9], [20, 0, 30, 5], [50, 50, 60, 60]])
    overlaps = match_boxes(boxes, OBJECTS)
    assert overlaps.nearest.tolist() == [0, 1, 0]  # 9 / 10 and 8 / 9: the first object
    np.testing.assert_allclose(overlaps.largest, [0.9, 0.5, 0])
    assert match_boxes(boxes[:1], OBJECTS[[2, 2]]).nearest.tolist() == [0]  # the first of equals


def test_thresholds_take_in_their_own_value_or_not():
    overlaps = match_boxes(np.float32([[20, 0, 30, 5], [20, 0, 30, 4], [20, 0, 30, 6]]), OBJECTS)  # 0.5, 0.4, 0.6
    assert overlaps.at_least(0.5).tolist() == [True, False, True]
    assert overlaps.above(0.5).tolist() == [False, False, True]
    assert overlaps.below(0.5).tolist() == [False, True, False]


def test_best_of_an_object_by_hand():
    """The first object's best are two equal boxes; no box overlaps the second; the third's best is a poor one."""
    boxes = np.float32([[0, 0, 10, 5], [0, 5, 10, 10], [0, 0, 10, 4], [90, 0, 100, 10]])
    objects = np.float32([[0, 0, 10, 10], [50, 50, 60, 60], [95, 0, 195, 10]])
    assert match_boxes(boxes, objects).best_of_an_object().tolist() == [True, True, False, True]


def test_equal_overlaps_that_rounding_parts_are_equal():
    overlaps = match_boxes(np.zeros((2, 4)), np.zeros((1, 4)))
    overlaps.iou[:] = [[0.1 + 0.2], [0.3]]
    assert overlaps.best_of_an_object().tolist() == [True, True]


def test_by_class_by_hand():
    """Two objects of class 1: the better one counts; none of class 0; class 2 as large as half the box."""
    objects = np.float32([[0, 0, 10, 10], [0, 0, 10, 8], [5, 0, 10, 10]])
    overlaps = match_boxes(np.float32([[0, 0, 10, 9], [20, 20, 30, 30]]), objects).by_class(np.array([1, 1, 2]), 4)
    assert overlaps.dtype == np.float32
    assert overlaps.shape == (2, 4)
    np.testing.assert_allclose(overlaps[0], [0, 0.9, 45 / 95, 0], rtol=1e-6)
    assert not overlaps[1].any()


def test_against_a_loop():
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 50, (30, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(5, 50, (30, 2))], axis=1).astype(np.float32)
    labels = generator.integers(0, 3, 6)
    overlaps = match_boxes(boxes, boxes[:6])
    of_classes = overlaps.by_class(labels, 4)
    for row in range(30):
        single = [iou(boxes[row : row + 1], boxes[k : k + 1]).item() for k in range(6)]
        assert (overlaps.largest[row], overlaps.nearest[row]) == (max(single), single.index(max(single)))
        for label in range(4):
            assert of_classes[row, label] == np.float32(max((single[k] for k in range(6) if labels[k] == label), default=0))


def test_no_boxes_and_no_objects():
    nothing = np.zeros((0, 4), np.float32)
    for boxes, objects in ((nothing, OBJECTS), (OBJECTS, nothing), (nothing, nothing)):
        overlaps = match_boxes(boxes, objects)
        assert overlaps.largest.tolist() == overlaps.nearest.tolist() == [0] * len(boxes)
        assert not overlaps.at_least(0.1).any()
        assert overlaps.below(0.1).all()
        assert not overlaps.best_of_an_object().any()
        assert overlaps.by_class(np.zeros(len(objects), np.int64), 2).shape == (len(boxes), 2)
