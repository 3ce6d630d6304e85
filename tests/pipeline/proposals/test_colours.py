import numpy as np
import pytest
from skimage.color import rgb2hsv, rgb2lab

from pipeline.errors import PipelineError
from pipeline.proposals.colours import CHANNELS, convert_colours

RED, GREEN, GREY, BLACK, WHITE = [255, 0, 0], [0, 255, 0], [128, 128, 128], [0, 0, 0], [255, 255, 255]
PIXELS = np.array([[RED, GREEN, GREY, BLACK, WHITE]], np.uint8)


@pytest.mark.parametrize(("space", "expected"), [
    ("hsv", [[0, 255, 255], [85, 255, 255], [0, 0, 128], [0, 0, 0], [0, 0, 255]]),
    ("hue", [[0], [85], [0], [0], [0]]),
    ("rgi", [[255, 0, 85], [0, 255, 85], [85, 85, 128], [0, 0, 0], [85, 85, 255]]),
    ("intensity", [[76], [150], [128], [0], [255]]),  # 0.299 and 0.587 of 255
    # L* a* b* of sRGB red, D65: 53.24, 80.09, 67.20; green: 87.73, -86.18, 83.18; grey: 53.59.
    ("lab", [[136, 208, 195], [224, 42, 211], [137, 128, 128], [0, 128, 128], [255, 128, 128]]),
])
def test_colours_by_hand(space, expected):
    channels = convert_colours(PIXELS, space)
    assert channels.dtype == np.uint8
    assert channels.shape == (CHANNELS[space], 1, 5)
    assert channels[:, 0].T.tolist() == expected


@pytest.fixture(scope="module")
def many():
    """Random colours, and all greys."""
    colours = np.random.default_rng(0).integers(0, 256, (200, 256, 3), dtype=np.uint8)
    colours[0] = np.arange(256)[:, None]
    return colours


def test_lab_agrees_with_scikit_image(many):
    expected = rgb2lab(many) * [2.55, 1, 1] + [0, 128, 128]
    assert abs(convert_colours(many, "lab").transpose(1, 2, 0) - expected).max() < 0.52


def test_hsv_agrees_with_scikit_image(many):
    expected = rgb2hsv(many) * 255
    assert abs(convert_colours(many, "hsv").transpose(1, 2, 0) - expected).max() < 0.5 + 1e-6
    assert np.array_equal(convert_colours(many, "hue")[0], convert_colours(many, "hsv")[0])


def test_any_memory_order_will_do(many):
    for space in CHANNELS:
        assert np.array_equal(convert_colours(many[:, ::-1], space), convert_colours(many[:, ::-1].copy(), space))


def test_another_space_is_an_error():
    with pytest.raises(PipelineError, match="no colour space 'cmyk'; choose one of hsv, lab, rgi, hue, intensity"):
        convert_colours(PIXELS, "cmyk")
