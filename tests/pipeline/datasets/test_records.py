"""Records: what JSON keeps of them."""

import json

import numpy as np

from pipeline.datasets.records import ImageRecord, Split


def make_split():
    """Two images: one with float32 coordinates of every kind, one without objects."""
    boxes = np.float32([[0, 0, 10.1, 1 / 3], [1e-7, 2.5, 16777215, 1e9]])
    full = ImageRecord("a/b", "images/ä.jpg", "12ab", 640, 480, boxes, np.array([1, 0]), np.array([False, True]))
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    return Split("train", ("cat", "dog"), (full, ImageRecord("c", "c.png", "", 1, 2, *nothing)), ("a/b: object 3 dropped",))


def test_json_keeps_every_bit_and_type():
    split = make_split()
    found = Split.from_json(json.loads(json.dumps(split.to_json())))
    assert (found.name, found.classes, found.dropped) == (split.name, split.classes, split.dropped)
    for image, expected in zip(found.images, split.images, strict=True):
        for name in ("id", "path", "digest", "width", "height"):
            assert getattr(image, name) == getattr(expected, name)
        for name in ("boxes", "labels", "difficult"):
            value, wanted = getattr(image, name), getattr(expected, name)
            assert (value.dtype, value.shape, value.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())


def test_equal_splits_give_equal_json():
    assert json.dumps(make_split().to_json()) == json.dumps(Split.from_json(make_split().to_json()).to_json())


def test_a_part_of_a_split():
    split = make_split()
    part = split.select([1, 0])
    assert [image.id for image in part.images] == ["c", "a/b"]
    assert (part.name, part.classes, part.dropped) == ("train", ("cat", "dog"), ())
    assert split.select(range(0)).images == ()
