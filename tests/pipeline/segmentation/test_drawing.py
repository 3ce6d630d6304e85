"""Label maps in colours and over their image."""

import numpy as np

from pipeline.segmentation.drawing import OPACITY, colours, overlay, pixel_counts

LABELS = np.uint8([[0, 1], [2, 2]])


def test_colours_are_those_of_voc_s_palette():
    assert colours(LABELS).tolist() == [[[0, 0, 0], [128, 0, 0]], [[0, 128, 0], [0, 128, 0]]]


def test_the_background_stays_as_it_is_where_there_is_one():
    pixels = np.full((2, 2, 3), 100, np.uint8)
    drawn = np.asarray(overlay(pixels, LABELS))
    assert drawn[0, 0].tolist() == [100, 100, 100]
    assert drawn[0, 1].tolist() == [round(40 + OPACITY * 128), 40, 40]
    assert np.asarray(overlay(pixels, LABELS, has_background=False))[0, 0].tolist() == [40, 40, 40]


def test_pixels_are_counted_by_name():
    assert pixel_counts(LABELS, ("background", "cat", "dog")) == {"background": 1, "cat": 1, "dog": 2}
