"""Six images with a bright square each, whose corners are its keypoints."""

import numpy as np
import pytest

from pipeline.datasets.keypoints import Skeleton
from pipeline.datasets.records import Split
from pipeline.pose.objects import posed_objects

SKELETON = Skeleton(("left", "right", "hidden"), limbs=((0, 1),), flip_pairs=((0, 1),))


@pytest.fixture
def posed(make_record):
    """A split, a function that reads its images, and its objects: `left` and `right` are upper corners of a square."""
    rng = np.random.default_rng(5)
    records, pixels = [], {}
    for number in range(6):
        x, y, side = *rng.integers(4, 20, 2), int(rng.integers(20, 30))
        image = rng.integers(90, 110, (60, 80, 3), dtype=np.uint8)
        image[y:y + side, x:x + side] = 250
        record = make_record(str(number), [[x, y, x + side, y + side]], [0])
        points = np.array([[[x, y, 1], [x + side, y, 1], [0, 0, 0]]], np.float32)
        object.__setattr__(record, "keypoints", points)
        records.append(record)
        pixels[record.id] = image
    split = Split("train", ("square",), tuple(records), skeleton=SKELETON)
    return split, lambda record: pixels[record.id], posed_objects(split.images, 3)
