"""A folder in YOLO's layout as a stage sees it: what changes its key, and what the index says."""

import luigi
import pytest

import tasks
from tests.pipeline.datasets.tool_folders import write
from tests.pipeline.datasets.yolo_folders import CAT, YOLO_TOOLS


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "data", YOLO_TOOLS["Roboflow"][0])


def index(root, split="train"):
    luigi.task_register.Register.clear_instance_cache()
    return tasks.IndexDataset(dataset=str(root), split=split, train_split="train", cache_dir=str(root.parent / "cache"))


@pytest.mark.parametrize(("files", "changes"), [
    ({"train/labels/IMG_1_jpg.rf.0a1b.txt": CAT + CAT}, True), ({"train/images/b.jpg": None}, True),
    ({"valid/labels/IMG_1_jpg.rf.0a1b.txt": ""}, False), ({"README.roboflow.txt": "dogs"}, False),
])
def test_what_changes_the_key(root, files, changes):
    before = index(root).key
    write(root, files)
    assert (index(root).key != before) == changes


def test_a_label_file_that_comes_later_changes_the_key(root):
    write(root, {"train/images/b.jpg": None})
    before = index(root).key
    write(root, {"train/labels/b.txt": CAT})
    assert index(root).key != before


def test_the_index(root, stages):
    task = stages.make(index(root, "val"))
    figures = task.artefact.manifest["figures"]
    assert (figures["images"], figures["objects"], figures["classes"], figures["noted"]) == (2, 2, 1, 1)
    assert "has an outline of 5 points; read as the box around it" in figures["noted_kinds"][0]
