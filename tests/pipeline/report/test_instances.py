"""Layers of masks: which pixels have which colour."""

import io
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.records import ImageRecord
from pipeline.detection.detections import Detections
from pipeline.detection.drawing import colour_of
from pipeline.evaluation.voc_ap import match_detections
from pipeline.report.instances import FALSE_ALARM, LONGEST_SIDE, OPACITY, found_layer, true_layer

BOXES = np.array([[10, 10, 50, 50], [60, 60, 90, 90]], np.float32)
CLEAR = (0, 0, 0, 0)


def record(name="b", side=100) -> ImageRecord:
    return ImageRecord(name, name, "0", side, side, BOXES, np.array([0, 1]), np.zeros(2, bool))


def pixels_of(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(b64decode(uri.partition(",")[2]))))


def colour(place: int) -> tuple:
    return (*colour_of(place), OPACITY)


def test_true_masks_have_the_colours_of_their_objects():
    masks = np.zeros((2, 100, 100), bool)
    masks[0, 10:50, 10:50] = masks[1, 40:90, 40:90] = True
    layer = pixels_of(true_layer(masks, record()))
    assert [tuple(layer[place]) for place in ((20, 20), (45, 45), (80, 80), (5, 5))] == [
        colour(0), colour(1), colour(1), CLEAR,
    ]
    assert pixels_of(true_layer(np.zeros((0, 900, 900), bool), record(side=900))).shape == (LONGEST_SIDE, LONGEST_SIDE, 4)


@pytest.mark.usefixtures("one_thread")
def test_found_masks_have_the_colours_of_the_objects_that_they_hit():
    """Of the second image: the second object's hit fills half of its box, a false alarm is on nothing, a third is too unsure."""
    boxes = np.array([BOXES[0], BOXES[1], [60, 10, 90, 40], [10, 60, 40, 90]], np.float32)
    detections = Detections(("a", "b"), ("cat", "dog"), [0, 1, 1, 1], [0, 1, 1, 1], [0.9, 0.9, 0.8, 0.1], boxes)
    masks = np.full((4, 28, 28), 255, np.uint8)
    masks[1, :, 14:] = 0
    images = [record("a"), record("b")]
    matches = match_detections(detections, images, ("cat", "dog"))
    layer = pixels_of(found_layer(matches, masks, images[1], 1, np.array([0.5, 0.5])))
    assert [tuple(layer[place]) for place in ((75, 65), (75, 85), (20, 75), (75, 20), (20, 20))] == [
        colour(1), CLEAR, (*FALSE_ALARM, OPACITY), CLEAR, CLEAR,
    ]
