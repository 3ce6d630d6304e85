"""Where windows lie, on sizes worked by hand."""

import numpy as np
import pytest
import torch

from pipeline.networks.backbones import IMAGENET
from pipeline.networks.whole_images import Scaling
from pipeline.sliding_window.layout import WindowLayout, framed_input, scalings

LAYOUT = WindowLayout(20, 4)  # its frame is 5 pixels


@pytest.mark.parametrize(("length", "positions"), [
    (10, 3),  # 10 + 2 x 5 pixels hold one window, which becomes 3
    (18, 3),  # 28 hold three
    (19, 6),  # 29 take a fourth, which becomes 6
])
def test_positions(length, positions):
    assert LAYOUT.positions(length) == positions
    assert LAYOUT.length(positions) >= length + 10


def test_windows_row_by_row():
    windows = LAYOUT.windows(2, 3)
    assert windows.dtype == np.float32
    np.testing.assert_array_equal(windows[[0, 1, 3]], [[0, 0, 20, 20], [4, 0, 24, 20], [0, 4, 20, 24]])


def test_scales_are_in_sides_of_a_window():
    assert [scaling.size for scaling in scalings(40, 60, LAYOUT, (1, 2.5))] == [(20, 30), (50, 75)]


def test_a_long_image_is_limited_by_its_longer_side():
    """As everywhere here: at most 5/3 of the shorter side."""
    assert scalings(10, 100, LAYOUT, (1,))[0].size == (3, 33)


def test_image_boxes():
    """An object at (10, 20, 30, 40) of an image that is scaled by 2 and by 3, behind the frame."""
    scaled = np.array([[10 * 2 + 5, 20 * 3 + 5, 30 * 2 + 5, 40 * 3 + 5]], np.float32)
    np.testing.assert_array_equal(LAYOUT.image_boxes(scaled, Scaling((1, 1), (2.0, 3.0))), [[10, 20, 30, 40]])


def test_framed_input():
    pixels = np.full((19, 10, 3), 255, np.uint8)
    image = framed_input(pixels, Scaling.of(19, 10, 10, 1000), LAYOUT, IMAGENET, torch.device("cpu"))
    assert image.shape == (1, 3, LAYOUT.length(6), LAYOUT.length(3))
    shown = image[0, 0] != 0
    assert shown.nonzero().min(dim=0).values.tolist() == [5, 5]
    assert shown.nonzero().max(dim=0).values.tolist() == [5 + 19 - 1, 5 + 10 - 1]
    white = (255 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    np.testing.assert_allclose(image[0, :, 10, 8], white, rtol=1e-5)
