"""Small feature stores in files."""

import numpy as np
import pytest

from pipeline.feature_store import FeatureStore, FeatureWriter, ImageFeatures
from pipeline.rcnn.svm import EVENT, LinearSVMs


@pytest.fixture
def make_store(tmp_path):
    """make_store(classes, images) -> FeatureStore; an image is (features, overlaps, ground-truth labels) of its regions.

    Region i of an image has the box (i, 0, i + 1, 1).
    """
    count = iter(range(100))

    def make(classes, images, difficult=()):
        path, size = tmp_path / f"{next(count)}.h5", np.shape(images[0][0])[1]
        with FeatureWriter(path, size, classes, {}) as writer:
            for number, (features, overlaps, labels) in enumerate(images):
                boxes = np.array([(row, 0, row + 1, 1) for row in range(len(labels))], np.float32).reshape(-1, 4)
                marks = np.array([(number, row) in difficult for row in range(len(labels))], bool)
                writer.append(f"image{number}", ImageFeatures(
                    boxes, np.array(overlaps, np.float32).reshape(-1, len(classes)), np.array(labels, np.int32), marks,
                    np.array(features, np.float16).reshape(-1, size),
                ))
        return FeatureStore([path])

    return make


@pytest.fixture
def svms():
    """Two SVMs: the score of class a is the first of two features, that of class b the second."""
    nothing = np.zeros(2, np.int64)
    events, hard = np.zeros(0, EVENT), np.zeros((0, 3), np.int64)
    W, B = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
    return LinearSVMs(("a", "b"), W, B, 1.0, nothing, nothing, nothing, events, hard)
