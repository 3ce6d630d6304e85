"""The result files of detection stages and of exported detectors: ids and names are those of the user's data set."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import tasks.export
from pipeline.datasets.records import CocoNames, ImageRecord, Split
from pipeline.detection.candidates import Candidates, save_candidates
from tasks.detection import CANDIDATES, DetectSplit
from tasks.export import ExportDetector

NAMES = CocoNames((11, "b"), ("a.jpg", "sub/b.jpg"), (90, 17))


def split_of(coco):
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    images = [ImageRecord(id, f"JPEGImages/{id}.jpg", "", 20, 12, *nothing) for id in ("11", "a b")]
    return Split("test", ("cat", "shelf/door"), images, coco=coco)


@pytest.fixture
def workshop(tmp_path):
    def write(name, content):
        (tmp_path / "files" / name).write_text(content)

    (tmp_path / "files").mkdir()
    return SimpleNamespace(files=tmp_path / "files", write=write)


@pytest.mark.parametrize(("coco", "ids", "images"), [
    (NAMES, ["b", 17], [{"id": 11, "file_name": "a.jpg"}, {"id": "b", "file_name": "sub/b.jpg"}]),
    (None, [2, 2], [{"id": 1, "file_name": "11.jpg"}, {"id": 2, "file_name": "a b.jpg"}]),
])
def test_result_files_of_a_split(tmp_path, workshop, coco, ids, images):
    of_image = Candidates(np.int32([1]), np.float32([0.5]), np.float32([[1, 2, 5, 7]]), np.array([True]))
    nothing = Candidates(*(getattr(of_image, name)[:0] for name in ("class_index", "score", "boxes", "survives")))
    save_candidates(tmp_path / CANDIDATES, [nothing, of_image])
    shard = SimpleNamespace(path=lambda name: tmp_path / name, manifest={"figures": {"images": 2, "detections": 1}})
    no_limits = dict.fromkeys(("max_per_image", "mean_per_image", "max_detections"), 0)
    stage = SimpleNamespace(label="Detect/abc", load_split=lambda: split_of(coco), **no_limits)
    assert DetectSplit.merge_shards(stage, workshop, [shard]) == {"detections": 1}
    (entry,) = json.loads((workshop.files / "coco.json").read_text())
    assert [entry["image_id"], entry["category_id"], entry["bbox"]] == [*ids, [1, 2, 4, 5]]
    names = json.loads((workshop.files / "coco.names.json").read_text())
    assert names["images"] == images
    assert (workshop.files / "voc/comp4_det_test_shelf%2Fdoor.txt").read_text() == "a%20b 0.5 2 3 5 7\n"


@pytest.mark.parametrize(("coco", "ids"), [(NAMES, [90, 17]), (None, None)])
def test_an_exported_detector_knows_the_categories(monkeypatch, workshop, coco, ids):
    monkeypatch.setattr(tasks.export, "load_split", lambda artefact: split_of(coco))
    detection = SimpleNamespace(detector_parts=dict)
    stage = SimpleNamespace(
        chain="rcnn", format="torch", detection=lambda: detection, inputs=lambda: {"train": None}, use_of_parts=dict
    )
    ExportDetector.build(stage, workshop)
    assert json.loads((workshop.files / "detector.json").read_text()).get("category_ids") == ids
