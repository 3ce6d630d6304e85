"""Images that the tests of training share."""

import numpy as np
import pytest

HEIGHT, WIDTH = 60, 80


@pytest.fixture
def images(make_record):
    """Six grey images, each with a bright square and a dark one; records and pixels."""
    rng = np.random.default_rng(5)
    records, pixels = [], []
    for number in range(6):
        boxes = np.hstack([place := rng.integers(0, (44, 24), (2, 2)), place + rng.integers(20, 36, (2, 1))])
        image = rng.integers(100, 140, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for (x1, y1, x2, y2), value in zip(boxes, (250, 5), strict=True):
            image[y1:y2, x1:x2] = value
        records.append(make_record(str(number), boxes, [0, 1], HEIGHT, WIDTH))
        pixels.append(image)
    return records, pixels
