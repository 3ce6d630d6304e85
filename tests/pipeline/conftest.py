"""Fixtures for the tests of the algorithms."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.records import ImageRecord

HEIGHT, WIDTH = 60, 80  # of the images that the tests of training share


@pytest.fixture
def make_record():
    """make_record(id, boxes, labels, height, width) -> ImageRecord"""

    def make(id, boxes=(), labels=(), height=60, width=80):
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        return ImageRecord(id, f"{id}.png", "", width, height, boxes, np.array(labels, np.int64), np.zeros(len(boxes), bool))

    return make


@pytest.fixture
def make_matches():
    """make_matches(images, classes, rows) -> Matches; a row is (image, class, score, box)."""

    from pipeline.detection.detections import Detections
    from pipeline.evaluation.voc_ap import match_detections

    def make(images, classes, rows):
        columns = zip(*rows) if rows else ([], [], [], [])
        detections = Detections(tuple(image.id for image in images), classes, *map(np.array, columns))
        return match_detections(detections, images, classes)

    return make


@pytest.fixture(scope="session", autouse=True)
def _gradients_before_onnx():
    """NOTE: where torch exports to ONNX before its first gradients, these take threads, and forks can have none any more."""
    import torch

    torch.ones(1, requires_grad=True).backward()


@pytest.fixture
def one_thread():
    """Torch on one thread: the same bytes everywhere, and other tests keep their cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def stores(monkeypatch):
    """The module of feature stores in memory."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("memory_store")
