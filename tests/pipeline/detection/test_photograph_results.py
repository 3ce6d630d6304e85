"""Detections in a user's images as files."""

import json
import math

import pytest

from pipeline.detection.detections import Detections
from pipeline.detection.photograph_results import write_results
from pipeline.detection.result_files import voc_id

IMAGES = [
    {"image": "a b/ü.jpg", "width": 30, "height": 20}, {"image": "broken.jpg", "error": "no image"},
    {"image": "empty.jpg", "width": 5, "height": 6},
]


def test_results_in_every_format(tmp_path):
    detections = Detections(
        ("a b/ü.jpg", "empty.jpg"), ("cat", "dog"), [0, 0], [0, 1], [0.25, 0.1], [[1, 2, 4, 8], [0, 0, 30, 20]]
    )
    write_results(tmp_path, IMAGES, detections)
    text = (tmp_path / "detections.json").read_text(encoding="utf-8")
    assert "ü" in text
    entries = [{"class": "cat", "score": 0.25, "box": [1, 2, 4, 8]}, {"class": "dog", "score": 0.1, "box": [0, 0, 30, 20]}]
    assert json.loads(text) == {
        "classes": ["cat", "dog"], "failed": [{"image": "broken.jpg", "error": "no image"}],
        "images": [{**IMAGES[0], "detections": entries}, {**IMAGES[2], "detections": []}],
    }
    assert (tmp_path / "voc" / "comp4_det_photographs_cat.txt").read_text(encoding="utf-8") == "a%20b/ü.jpg 0.25 2 3 4 8\n"
    assert json.loads((tmp_path / "coco.json").read_text())[0] == {
        "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 6], "score": 0.25,
    }


def test_probabilities_stand_beside_the_scores(tmp_path):
    """Slope 2 and offset -1: ln 3 of odds at a score of 1.0493 gives 3/4; dogs have none."""
    score = (1 + math.log(3)) / 2
    detections = Detections(("a b/ü.jpg", "empty.jpg"), ("cat", "dog"), [0, 0], [0, 1], [score, 0.1], [[1, 2, 4, 8]] * 2)
    write_results(tmp_path, IMAGES, detections, {"calibration": [[2, -1], None], "category_ids": [90, 17]})
    entries = json.loads((tmp_path / "detections.json").read_text())["images"][0]["detections"]
    assert [entry["probability"] for entry in entries] == [0.75, None]
    assert {entry["category_id"] for entry in json.loads((tmp_path / "coco.json").read_text())} == {90, 17}


def test_results_without_any_image_that_can_be_used(tmp_path):
    write_results(tmp_path, IMAGES[1:2], Detections((), ("cat",), [], [], [], []))
    assert json.loads((tmp_path / "detections.json").read_text()) == {
        "classes": ["cat"], "failed": [{"image": "broken.jpg", "error": "no image"}], "images": [],
    }


@pytest.mark.parametrize(("name", "expected"), [
    ("a/b.jpg", "a/b.jpg"), ("a b.jpg", "a%20b.jpg"), ("a%20b.jpg", "a%2520b.jpg"), ("a\tb\nc", "a%09b%0Ac"),
    ("ü\u3000", "ü%E3%80%80"),
])
def test_names_in_vocs_files_have_no_spaces_and_stay_different(name, expected):
    assert voc_id(name) == expected
