"""Which object each detection finds."""

import numpy as np
import pytest

from pipeline.detection.detections import ImageDetections
from pipeline.pose.found import found_boxes

CLASSES = "cat", "dog"
BOXES = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 0, 60, 10]], np.float64)
NONE = [np.nan] * 4


def detections(*rows):
    """Each of `rows` is a box, its label and its score."""
    boxes, labels, scores = ([row[place] for row in rows] for place in range(3))
    return ImageDetections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int32), CLASSES
    )


@pytest.mark.parametrize(("rows", "expected"), [
    ([], [NONE, NONE, NONE]),
    # The second one overlaps the first object more, which is taken.
    ([([0, 0, 10, 10], 0, 0.5), ([0, 0, 10, 9], 0, 0.4)], [[0, 0, 10, 10], [0, 0, 10, 9], NONE]),
    # A better score chooses first.
    ([([0, 0, 10, 9], 0, 0.4), ([0, 0, 10, 10], 0, 0.5)], [[0, 0, 10, 10], [0, 0, 10, 9], NONE]),
    # Another class; an IoU of exactly 0.5.
    ([([50, 0, 60, 10], 0, 0.9), ([50, 0, 60, 5], 1, 0.8)], [NONE, NONE, NONE]),
    ([([50, 0, 60, 5.1], 1, 0.1)], [NONE, NONE, [50, 0, 60, 5.1]]),
])
def test_each_detection_finds_one_free_object_of_its_class(rows, expected):
    np.testing.assert_allclose(found_boxes(BOXES, np.array([0, 0, 1]), detections(*rows)), expected, rtol=1e-6)


def test_an_image_without_objects():
    assert found_boxes(np.zeros((0, 4)), np.zeros(0, np.int32), detections(([0, 0, 9, 9], 0, 1))).shape == (0, 4)
