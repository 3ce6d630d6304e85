"""Equal images in two splits, or twice in one."""

import pytest

from pipeline.datasets.overlap import shared_images
from tests.pipeline.datasets.layouts import LAYOUTS, Item, counts_of, encoded, pixels_of, read

TWICE = "images that are in the split twice"


def items(*numbers):
    """Images whose ids differ from the numbers of their pixels."""
    return [Item(place, encoded(pixels_of(number))) for place, number in enumerate(numbers, 1)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_image_twice_in_a_split(tmp_path, layout):
    layout(tmp_path, *items(1, 2, 1, 1))
    split = read(tmp_path)
    assert counts_of(split.notes) == [(TWICE, 2)]
    assert split.notes[0].examples[0] == "image '3' has the same content as image '1'"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_in_two_splits(tmp_path, layout):
    layout(tmp_path / "a", *items(1, 2, 3, 4, 5), split="train")
    layout(tmp_path / "b", *items(9, 5, 4, 8, 3, 2), split="test")
    train, test = read(tmp_path / "a"), read(tmp_path / "b", split="test")
    assert (train.notes, test.notes) == ((), ())
    remark = shared_images(test, train)
    assert (remark.kind, remark.count) == ("images of split 'test' that are also in split 'train'", 4)
    assert remark.examples[0] == "image '2' has the same content as image '5' of split 'train'"


def test_splits_that_share_none(tmp_path):
    LAYOUTS[0](tmp_path / "a", *items(1, 2))
    LAYOUTS[0](tmp_path / "b", *items(3))
    assert shared_images(read(tmp_path / "b"), read(tmp_path / "a")) is None
