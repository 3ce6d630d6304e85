"""Fixtures of the segmentation networks' tests."""

import numpy as np
import pytest


@pytest.fixture
def labelled(images):
    """The images with a bright square and a dark one, and their label maps: 0 background, 1 bright, 2 dark, the top row void."""
    records, pixels = images
    maps = []
    for record in records:
        labels = np.zeros((record.height, record.width), np.uint8)
        for (x1, y1, x2, y2), label in zip(record.boxes.astype(int), record.labels):
            labels[y1:y2, x1:x2] = label + 1
        labels[0] = 255
        maps.append(labels)
    return records, pixels, maps
