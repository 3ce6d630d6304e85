"""Thresholds and probabilities from the detections of a split."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.datasets.records import ImageRecord, Split
from pipeline.detection.detections import Detections
from tasks.evaluation import thresholds
from tasks.evaluation.thresholds import FindThresholds, detector_thresholds, source_text

A, B, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 60, 60)


@pytest.fixture
def build(tmp_path, monkeypatch):
    """build(calibrate, also) -> the stage's figures and files, of an image with two cats and a dog, which nothing finds."""

    def make(calibrate=False, also=None):
        objects = np.float32([A, B, FAR]), np.array([0, 0, 1]), np.zeros(3, bool)
        split = Split("val", ("cat", "dog"), (ImageRecord("x", "x.png", "", 100, 100, *objects),))
        rows = [0, 0, 0], [0, 0, 0], [1, 0.5, -1], [A, B, FAR]
        Detections(("x",), ("cat", "dog"), *rows).save(tmp_path / "detections.npz")
        monkeypatch.setattr(thresholds, "load_split", lambda _: split)
        artefact = SimpleNamespace(path=lambda name: tmp_path / name, json=lambda name: json.loads((tmp_path / name).read_text()))
        workshop = SimpleNamespace(write=lambda name, text: (tmp_path / name).write_text(text))
        stage = SimpleNamespace(
            inputs=lambda: {"split": None, "detections": artefact}, also=lambda: also, iou_threshold=0.5, calibrate=calibrate,
            label="FindThresholds/abc",
        )
        return FindThresholds.build(stage, workshop), artefact

    return make


def test_by_hand(build, caplog):
    with caplog.at_level(logging.WARNING, "stages"):
        figures, artefact = build()
    assert artefact.json("thresholds.json") == {
        "split": "val", "also": None, "images": 1, "iou_threshold": 0.5, "classes": {
            "cat": {"score": 0.5, "f1": 1, "precision": 1, "recall": 1, "objects": 2},
            "dog": {"score": None, "f1": 0, "precision": 0, "recall": 0, "objects": 1},
        },
    }
    assert figures == {"split": "val", "images": 1, "without_threshold": 1}
    assert [record.getMessage() for record in caplog.records] == [
        "FindThresholds/abc: on the split 'val' nothing is found of dog: no threshold; --draw-score auto stands in"]
    assert detector_thresholds(artefact, ("cat", "dog")) == {"thresholds": {"split": "val", "also": None, "scores": [0.5, None]}}
    assert artefact.path("table.txt").read_text().splitlines() == [
        "thresholds: best F1 of each class on the split 'val'", "",
        "class  from score  objects  precision  recall      F1",
        "-----------------------------------------------------",
        "cat          0.50        2     100.00  100.00  100.00",
        "dog             -        1       0.00    0.00    0.00",
    ]


def test_probabilities_are_those_of_the_classes(build):
    """Hits at 1 and 0.5, a false alarm at -1; of dogs there is nothing to learn from."""
    _, artefact = build(calibrate=True)
    document = detector_thresholds(artefact, ("cat", "dog"))
    (slope, offset), of_dogs = document["calibration"]
    assert of_dogs is None
    likely = 1 / (1 + np.exp(-(slope * np.array([1, 0.5, -1]) + offset)))
    assert likely[0] > likely[1] > 0.5 > likely[2]


@pytest.mark.parametrize(("also", "text"), [
    (None, ""), ("test", "; the chain is also tested on it, so they look better than they are"),
    ("training", "; the chain was trained on it, so they look better than they are"),
])
def test_a_split_that_is_used_twice_is_told(also, text):
    assert source_text({"split": "x", "also": also}) == f"thresholds: best F1 of each class on the split 'x'{text}"
