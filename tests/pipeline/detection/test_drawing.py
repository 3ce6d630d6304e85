"""Boxes drawn into images: where they are, and that they can be read on any ground."""

import numpy as np
import pytest

from pipeline.detection.drawing import draw_boxes


def drawn(pixels, boxes, texts, labels=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return np.asarray(draw_boxes(pixels, boxes, texts, np.arange(len(boxes)) if labels is None else np.array(labels)))


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_edges_differ_from_their_ground_and_the_text_from_its_own(ground):
    pixels = np.full((300, 400, 3), ground, np.uint8)
    image = drawn(pixels, [[100, 150, 200, 250]], ["cat 0.98"])
    assert (pixels == ground).all()
    colour = image[200, 100]
    assert np.abs(colour.astype(int) - ground).max() > 60
    for row, column in ((150, 150), (249, 150), (200, 199)):  # the last row and column of the box, whose x2 and y2 are exclusive
        assert image[row, column].tolist() == colour.tolist()
    assert (image[155:245, 105:195] == ground).all()
    assert (image[255:, :] == ground).all()
    text = image[130:147, 101:140].reshape(-1, 3).astype(int)
    assert np.ptp(text @ [299, 587, 114] / 1000) > 60


@pytest.mark.parametrize("box", [
    [0, 0, 30, 20], [180, 80, 200, 100], [-5, -5, 300, 300], [50, 50, 50, 50], [199.6, 99.6, 200, 100],
])
def test_boxes_at_the_border_and_empty_ones_are_no_error(box):
    image = drawn(np.zeros((100, 200, 3), np.uint8), [box], ["a name that is wider than all of the image by far 0.50"])
    assert image.shape == (100, 200, 3)
    assert image.any()


def test_classes_have_colours_and_the_last_is_on_top():
    pixels = np.zeros((100, 100, 3), np.uint8)
    box = [20, 40, 60, 90]
    first, second = (drawn(pixels, [box], [""], [label])[60, 20] for label in (0, 1))
    assert first.tolist() != second.tolist()
    assert drawn(pixels, [box, box], ["", ""], [0, 1])[60, 20].tolist() == second.tolist()
    np.testing.assert_array_equal(drawn(pixels, [], []), pixels)
