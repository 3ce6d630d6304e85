"""Fixtures for the tests of the algorithms."""

import numpy as np
import pytest

from pipeline.datasets.records import ImageRecord


@pytest.fixture
def make_record():
    """make_record(id, boxes, labels, height, width) -> ImageRecord"""

    def make(id, boxes=(), labels=(), height=60, width=80):
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        return ImageRecord(id, f"{id}.png", "", width, height, boxes, np.array(labels, np.int64), np.zeros(len(boxes), bool))

    return make


@pytest.fixture
def one_thread():
    """Torch on one thread: the same bytes everywhere, and other tests keep their cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
