import numpy as np
import pytest

from pipeline.proposals.recall import best_overlap, mean_average_best_overlap, recall

# Best overlaps by hand: 1/2 and 1 in the first image, 1/4 in the second, 0 in the third, which has no boxes.
BOXES = [
    np.array([[0, 0, 10, 5], [20, 20, 30, 30], [0, 0, 2, 2]], np.float32),
    np.array([[0, 0, 5, 5]], np.float32),
    np.zeros((0, 4), np.float32),
]
TRUTH = [
    np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32),
    np.array([[0, 0, 10, 10]], np.float32),
    np.array([[0, 0, 10, 10]], np.float32),
]


def test_best_overlap_of_each_object():
    assert best_overlap(BOXES[0], TRUTH[0]).tolist() == [0.5, 1]
    assert best_overlap(BOXES[2], TRUTH[2]).tolist() == [0]
    assert best_overlap(BOXES[0], np.zeros((0, 4))).shape == (0,)


def test_recall_counts_objects_at_or_above_each_threshold():
    assert recall(BOXES, TRUTH, [0.1, 0.5, 0.51, 1]).tolist() == [0.75, 0.5, 0.25, 0.25]


def test_mabo_is_the_mean_over_classes():
    labels = [np.array([7, 3]), np.array([7]), np.array([7])]
    # Class 3: 1; class 7: (1/2 + 1/4 + 0) / 3.
    assert mean_average_best_overlap(BOXES, TRUTH, labels) == pytest.approx((1 + 0.25) / 2)


@pytest.mark.parametrize("images", [[], [np.zeros((0, 4))]])
def test_without_objects_both_are_undefined(images):
    assert np.isnan(recall(images, images, [0.5, 0.7])).all()
    assert recall(images, images, [0.5, 0.7]).shape == (2,)
    assert np.isnan(mean_average_best_overlap(images, images, [np.zeros(0, np.int64)] * len(images)))


def test_lists_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        recall(BOXES[:2], TRUTH, [0.5])
