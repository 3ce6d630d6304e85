"""Splits and detections for the tests of the evaluation."""

import numpy as np
import pytest

from pipeline.datasets.records import ImageRecord
from pipeline.detection.detections import Detections


@pytest.fixture
def make_image():
    """make_image(id, boxes, labels, difficult) -> ImageRecord"""

    def make(id, boxes=(), labels=(), difficult=None):
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        difficult = np.zeros(len(boxes), bool) if difficult is None else np.array(difficult, bool)
        return ImageRecord(id, f"{id}.jpg", "", 1000, 1000, boxes, np.array(labels, np.int64), difficult)

    return make


@pytest.fixture
def make_split(make_image):
    """make_split(generator, num_images, num_classes, per_image, score_levels) -> images, classes, detections near the objects"""

    def make(generator, num_images, num_classes, per_image, score_levels=None):
        images, rows = [], []
        for index in range(num_images):
            number = generator.integers(0, 6)
            corner = generator.uniform(0, 60, (number, 2))
            boxes = np.concatenate([corner, corner + generator.uniform(20, 60, (number, 2))], axis=1)
            labels = generator.integers(num_classes, size=number)
            images.append(make_image(f"image {index}", boxes, labels, generator.random(number) < 0.2))
            for _ in range(per_image if number else 0):
                near = generator.integers(number)
                box = boxes[near] + generator.normal(0, 6, 4)
                label = labels[near] if generator.random() < 0.8 else generator.integers(num_classes)
                score = generator.random() if score_levels is None else generator.integers(score_levels)
                rows.append((index, label, score, *box))
        rows = np.array(rows).reshape(-1, 7)
        classes = tuple(f"class {label}" for label in range(num_classes))
        detections = Detections(tuple(image.id for image in images), classes, *rows[:, :3].T, rows[:, 3:])
        return images, classes, detections

    return make
