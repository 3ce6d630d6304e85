import pytest

from pipeline.explorer.receptive_field import receptive_field, unit_place


def test_place_of_a_unit():
    """tiny: 128 channels of 4 x 4 cells, crops of 64 pixels."""
    assert unit_place("tiny", 0) == ((0, 0, 0), 64)
    assert unit_place("tiny", 2047) == ((127, 3, 3), 64)
    assert unit_place("tiny", 16 + 6) == ((1, 1, 2), 64)


def test_field_by_hand():
    """Cell i of tiny's map sees 107 pixels from 16 i - 46 on; its crop has 64."""
    assert receptive_field("tiny", 0, 0) == (0, 0, 61, 61)
    assert receptive_field("tiny", 1, 2) == (0, 0, 64, 64)
    assert receptive_field("tiny", 3, 0) == (0, 2, 61, 64)


@pytest.mark.exhaustive
def test_field_of_alexnet():
    """195 pixels (Girshick et al. 2014, section 3.1), where the crop does not end before."""
    x1, y1, x2, y2 = receptive_field("alexnet", 3, 3)
    assert (y2 - y1, x2 - x1) == (195, 195)
    assert receptive_field("alexnet", 0, 3)[1::2] == (0, 129)
