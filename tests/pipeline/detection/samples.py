"""Random detections, and a single one."""

import numpy as np

from pipeline.detection.detections import Detections


def random_boxes(generator, *shape, size=100):
    corner = generator.uniform(0, size / 2, (*shape, 2))
    return np.concatenate([corner, corner + generator.uniform(1, size / 2, (*shape, 2))], axis=-1).astype(np.float32)


def random_detections(count=60, images=5, classes=3, seed=0):
    generator = np.random.default_rng(seed)
    return Detections(
        tuple(f"{number:06}" for number in range(images)), tuple(f"class {number}" for number in range(classes)),
        generator.integers(images, size=count), generator.integers(classes, size=count),
        generator.normal(size=count), random_boxes(generator, count))


def one_detection(**changes):
    values = {"image_ids": ("a", "b"), "classes": ("cat",), "image_index": [1], "class_index": [0], "score": [0.5],
              "boxes": [[1, 2, 3, 4]]}
    return Detections(**{**values, **changes})
