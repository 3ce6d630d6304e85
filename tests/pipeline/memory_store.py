"""A feature store in memory, and random ones, for the tests of the linear models."""

from types import SimpleNamespace

import numpy as np

from pipeline.boxes import iou


class MemoryStore:
    """What the trainers ask of a feature store; counts the feature rows that are read."""

    def __init__(self, classes, images, num_features):
        self.classes, self.images, self.num_features = tuple(classes), images, num_features
        self.num_images = len(images)
        self.rows_read = 0

    def read(self, image, rows=None):
        fields = self.images[image]
        rows = np.arange(len(fields["boxes"])) if rows is None else np.asarray(rows)
        self.rows_read += len(rows)
        return SimpleNamespace(**{"repeated": None, **{name: array[rows] for name, array in fields.items()}})

    def norms(self, image, rows):
        return np.linalg.norm(self.read(image, rows).features.astype(np.float64), axis=1)

    def annotations(self, image):
        return SimpleNamespace(**{name: array for name, array in self.images[image].items() if name != "features"})


def make_image(features, boxes, gt_labels, num_classes):
    """One image's arrays; the overlaps follow from the boxes."""
    gt_labels = np.asarray(gt_labels, np.int64)
    overlaps = np.zeros((len(boxes), num_classes), np.float32)
    for label in range(num_classes):
        overlaps[:, label] = iou(boxes, boxes[gt_labels == label]).max(axis=1, initial=0)
    return {
        "features": features, "boxes": np.asarray(boxes, np.float32), "overlaps": overlaps, "gt_labels": gt_labels,
        "difficult": np.zeros(len(boxes), bool),
    }


def random_store(generator, images=8, boxes=40, num_features=24, num_classes=3, dtype=np.float32):
    """Images of two objects each, a third of the proposals close to one; features tell classes apart, somewhat."""
    stored = []
    for _ in range(images):
        corner, size = generator.uniform(0, 100, (boxes, 2)), generator.uniform(30, 90, (boxes, 2))
        placed = np.concatenate([corner, corner + size], axis=1).round()
        third = boxes // 3
        placed[2 : 2 + third] = (placed[generator.integers(0, 2, third)] + generator.uniform(-6, 6, (third, 4))).round()
        gt_labels = np.concatenate([generator.integers(0, num_classes, 2), np.full(boxes - 2, -1)])
        image = make_image(None, placed, gt_labels, num_classes)
        nearest = np.where(image["overlaps"].max(axis=1) > 0.3, image["overlaps"].argmax(axis=1), num_classes)
        features = generator.normal(size=(boxes, num_features)) + 1.5 * np.eye(num_classes + 1, num_features)[nearest]
        stored.append({**image, "features": np.maximum(features, 0).astype(dtype)})
    return MemoryStore([f"class{index}" for index in range(num_classes)], stored, num_features)


def oracle_store(data):
    """The simulated feature cache of the releases' oracles: 1-based inclusive boxes, classes from 1."""
    images = []
    for image in range(len(data["image_size"])):
        mine = data["image_index"] == image
        images.append({
            "features": data["features"][mine], "boxes": data["boxes"][mine] - np.float32([1, 1, 0, 0]),
            "overlaps": data["overlap"][mine], "gt_labels": data["gt_class"][mine].astype(np.int64) - 1,
            "difficult": np.zeros(mine.sum(), bool),
        })
    return MemoryStore(["first", "second", "third"], images, data["features"].shape[1])
