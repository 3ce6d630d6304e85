"""The split for thresholds is neither trained nor tested on."""

import json

import luigi
import pytest

import tasks
from tasks.data.held_out import has_split, held_out_split
from tests.pipeline.datasets.layouts import Item, Voc, encoded, pixels_of


@pytest.fixture
def stage(tmp_path):
    """stage(...) -> a stage that finds thresholds; the data set is in `tmp_path`/data unless one is given."""

    def make(**settings):
        luigi.task_register.Register.clear_instance_cache()
        return tasks.FindThresholds(**{"dataset": str(tmp_path / "data"), "cache_dir": str(tmp_path / "cache"), **settings})

    yield make
    luigi.task_register.Register.clear_instance_cache()


def write(root, **splits):
    for split, numbers in splits.items():
        Voc(root, *[Item(number, encoded(pixels_of(number))) for number in numbers], split=split)


@pytest.mark.parametrize(("settings", "expected"), [
    ({"dataset": "digits"}, "val"), ({"dataset": "digits", "test_split": "val"}, None),
    ({"dataset": "digits", "train_split": "val"}, None), ({"dataset": "voc2007"}, "val"),
    ({"dataset": "voc2007", "train_split": "trainval"}, None), ({"dataset": "voc2012", "test_split": "val"}, None),
])
def test_data_sets_that_are_made(stage, settings, expected):
    assert held_out_split(stage(**settings)) == expected
    assert has_split(stage(**settings), "test")


@pytest.mark.parametrize(("splits", "expected"), [
    ({"train": [1, 2], "test": [3]}, None), ({"train": [1, 2], "val": [4], "test": [3]}, "val"),
    ({"train": [1, 2], "valid": [4], "test": [3]}, "valid"), ({"train": [1, 2], "val": [2, 4], "test": [3]}, None),
    ({"train": [1, 2], "val": [3, 4], "test": [3]}, None), ({"train": [1, 2], "val": [2], "valid": [4], "test": [3]}, "valid"),
    ({"train": [1, 2], "val": [4]}, "val"), ({"train": [1, 2]}, None),
])
def test_folders_by_their_images(stage, tmp_path, splits, expected):
    """One shared image is enough for a split not to be held out."""
    write(tmp_path / "data", **splits)
    assert held_out_split(stage()) == expected
    assert has_split(stage(), "test") == ("test" in splits)


def test_coco_s_layout(stage, tmp_path):
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    for split, name in ("train", "a.jpg"), ("val", "b.jpg"), ("test", "c.jpg"):
        document = {"images": [{"id": 1, "file_name": name}], "categories": [], "annotations": []}
        (tmp_path / "data" / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
        (tmp_path / "data" / name).touch()
    assert held_out_split(stage()) == "val"
    assert held_out_split(stage(test_split="val")) is None


class TestChosen:
    def test_the_held_out_split_then_the_test_split_then_none(self, stage, tmp_path):
        write(tmp_path / "data", train=[1, 2], val=[4], test=[3])
        assert (stage().chosen_split, stage().also()) == ("val", None)
        assert (stage(test_split="val").chosen_split, stage(test_split="val").also()) == ("val", "test")
        (tmp_path / "data/ImageSets/Main/val.txt").unlink()
        assert (stage().chosen_split, stage().also()) == ("test", "test")
        (tmp_path / "data/ImageSets/Main/test.txt").unlink()
        assert stage().chosen_split is None

    def test_the_user_s_choice(self, stage):
        chosen = stage(dataset="digits", threshold_split="train")
        assert (chosen.chosen_split, chosen.also()) == ("train", "training")
        assert stage(dataset="digits", threshold_split="none").chosen_split is None

    def test_the_detection_is_that_of_the_split(self, stage):
        task = stage(dataset="digits", chain="fast-rcnn")
        required = task.requires()
        assert required["split"].split == required["detections"].test_split == "val"
        assert {name: index.split for name, index in task.splits().items()} == {"train": "train", "val": "val"}

    def test_a_split_that_is_also_the_test_split_is_another_result(self, stage):
        """The file says so."""
        keys = {stage(dataset="digits", threshold_split="val", test_split=split).key for split in ("test", "val")}
        assert len(keys) == 2


def test_the_key_follows_from_what_the_manifest_records(stage):
    """`rcnn-cache verify` computes it from these entries again."""
    inputs = stage(dataset="digits", chain="faster-rcnn", threshold_split="test").key_inputs()
    assert set(inputs) == {"stage", "version", "parameters", "requires", "outside"}
    assert inputs["outside"] == {"also": "test"}
    assert stage(dataset="digits", chain="faster-rcnn").key_inputs()["outside"] == {"also": None}


class TestDetectors:
    def test_an_export_without_thresholds_is_what_it_was(self, stage, tmp_path):
        """Its inputs are those of before there were thresholds, and so is its key."""
        write(tmp_path / "data", train=[1, 2])
        task = stage(chain="faster-rcnn").clone(tasks.ExportDetector)
        assert set(task.requires()) == {"train", "network", "rpn"}
        assert [index.split for index in task.deps()] == ["train"]
        assert task.clone(threshold_split="none").key == task.key

    def test_an_export_has_them_where_there_is_a_split(self, stage):
        task = stage(dataset="digits", chain="faster-rcnn").clone(tasks.ExportDetector)
        assert isinstance(task.requires()["thresholds"], tasks.FindThresholds)
        assert [index.split for index in task.deps()] == ["train", "val"]
        assert task.clone(threshold_split="none").key != task.key

    def test_another_threshold_makes_no_shard_of_photographs_again(self, stage, tmp_path):
        (tmp_path / "a.png").write_bytes(encoded(pixels_of(1)))
        settings = {"dataset": "digits", "chain": "rcnn", "images": str(tmp_path / "a.png"), "cache_dir": str(tmp_path / "cache")}
        task = tasks.DetectImages(**settings)
        assert set(task.requires()) == {"index", "detector", "thresholds"}
        assert set(task.clone(draw_score="auto").requires()) == {"index", "detector"}
        assert set(task.clone(draw_score=0.5, annotations=("voc",)).requires()) == {"index", "detector", "thresholds"}
        shards = [task.clone(shard=0, **changed) for changed in ({}, {"draw_score": "auto"}, {"calibrate": True})]
        assert all(set(shard.requires()) == {"index", "detector"} for shard in shards)
        assert len({shard.upstream()["detector"].key for shard in shards}) == 1
        assert len({task.clone(**changed).key for changed in ({}, {"draw_score": "auto"}, {"calibrate": True})}) == 3


@pytest.mark.parametrize(("settings", "message"), [
    ({"chain": "fast-rcnn", "calibrate": True}, "^--calibrate true: fast-rcnn gives probabilities already; use it with "),
    ({"threshold_split": "none", "calibrate": True}, "^--threshold-split none: no split to choose thresholds on"),
])
def test_probabilities_that_cannot_be_fitted(stage, settings, message):
    from pipeline.errors import PipelineError

    with pytest.raises(PipelineError, match=message):
        _ = stage(dataset="digits", **settings).clone(tasks.ExportDetector).key
