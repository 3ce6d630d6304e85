"""Splits, matches and feature stores for the tests of the report."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.rcnn.svm import EVENT, LinearSVMs


class Store:
    """A feature store in memory, of (features, overlaps, ground-truth labels) an image; box i of an image is (i, 0, i + 1, 1)."""

    def __init__(self, classes, images):
        self.classes, self.images, self.image_ids = classes, images, [f"{number}.jpg" for number in range(len(images))]
        self.num_images, self.num_features = len(images), np.shape(images[0][0])[1]

    def read(self, image):
        features, overlaps, gt_labels = self.images[image]
        boxes = [(place, 0, place + 1, 1) for place in range(len(features))]
        return SimpleNamespace(
            features=np.array(features, np.float16).reshape(-1, self.num_features), gt_labels=np.array(gt_labels, np.int32),
            overlaps=np.array(overlaps, np.float32).reshape(-1, len(self.classes)),
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
        )


@pytest.fixture
def svms():
    """Two SVMs: of class a on the first of two features, of class b on the second."""
    nothing, W = np.zeros(2, np.int64), np.eye(2, dtype=np.float32)
    B, events, hard = np.zeros(2, np.float32), np.zeros(0, EVENT), np.zeros((0, 3), np.int64)
    return LinearSVMs(("a", "b"), W, B, 1.0, nothing, nothing, nothing, events, hard)


@pytest.fixture
def make_store():
    return Store
