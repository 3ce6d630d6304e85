import numpy as np
import pytest

from pipeline.proposals.recall import COUNTS, THRESHOLDS, best_overlaps_of_first, measure_quality

# Best overlaps by hand: 1/2 and 1 in the first image, the latter with its second box; 1/4 in the second; 0 in the third, which
# has no boxes.
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
LABELS = [np.array([2, 0]), np.array([2]), np.array([2])]


def test_best_overlaps_of_the_first_boxes():
    assert best_overlaps_of_first(BOXES[0], TRUTH[0], np.array([0, 1, 2, 9])).tolist() == [[0, 0.5, 0.5, 0.5], [0, 0, 1, 1]]
    assert best_overlaps_of_first(BOXES[2], TRUTH[2], np.array([1, 5])).tolist() == [[0, 0]]
    assert best_overlaps_of_first(BOXES[0], np.zeros((0, 4)), np.array([1])).shape == (0, 1)


def test_quality_by_hand():
    quality = measure_quality(BOXES, TRUTH, LABELS, 3)
    assert quality.counts.tolist() == [1, 2, 3]
    assert quality.boxes_per_image.tolist() == pytest.approx([2 / 3, 1, 4 / 3])
    assert quality.recalls[:, 0].tolist() == [0.25, 0.5, 0.5]  # at IoU 0.5, which the first object just has
    assert quality.recalls[:, 1:].tolist() == [[0] * 9, [0.25] * 9, [0.25] * 9]
    assert quality.average_recall.tolist() == pytest.approx([0.025, 0.275, 0.275])
    assert quality.best_overlap[-1, [0, 2]].tolist() == pytest.approx([1, 0.25])  # (1/2 + 1/4 + 0) / 3
    assert np.isnan(quality.best_overlap[:, 1]).all()  # a class without objects, which the mean leaves out
    assert quality.mabo.tolist() == pytest.approx([0.125, 0.625, 0.625])


def test_thresholds_and_counts():
    assert THRESHOLDS.tolist() == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
    boxes = np.tile(np.float32([0, 0, 10, 10]), (60, 1))
    assert measure_quality([boxes], TRUTH[1:2], LABELS[1:2], 3).counts.tolist() == [1, 2, 5, 10, 20, 50, 60]
    assert sorted(COUNTS) == list(COUNTS)


@pytest.mark.parametrize("images", [0, 2])
def test_without_objects_all_is_undefined(images):
    quality = measure_quality([np.ones((2, 4))] * images, [np.zeros((0, 4))] * images, [np.zeros(0, int)] * images, 2)
    assert np.isnan(quality.recalls).all()
    assert np.isnan(quality.mabo).all()
    assert quality.recalls.shape == (len(quality.counts), 10)
    assert quality.to_json()["mabo"] == [None] * len(quality.counts)


def test_json():
    document = measure_quality(BOXES, TRUTH, LABELS, 3).to_json()
    assert document["iou"] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert document["counts"] == [1, 2, 3]
    assert document["best_overlap"][-1] == [1, None, 0.25]


def test_lists_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        measure_quality(BOXES[:2], TRUTH, LABELS, 3)
