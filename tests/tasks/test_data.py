"""A data set in COCO's layout, whose annotations are one file for all images: what its changes redo."""

import json
import os

import luigi
import numpy as np
import pytest
from PIL import Image

import tasks
from pipeline.errors import DatasetError

NOBODY, FIRST, SECOND = [], [0], [1]


class Coco:
    """A folder in COCO's layout: the splits `train` and `val` of two images, each with a cat."""

    def __init__(self, root, cache):
        self.root, self.cache = root, cache
        (root / "annotations").mkdir(parents=True)
        for split in ("train", "val"):
            (root / split).mkdir()
            for id in (1, 2):
                self.paint(split, id, 0)
            boxes = [{"id": id, "image_id": id, "category_id": 7, "bbox": [1, 2, 3, 4]} for id in (1, 2)]
            images = [{"id": id, "file_name": f"{id}.png"} for id in (1, 2)]
            self.write(split, {"images": images, "categories": [{"id": 7, "name": "cat"}], "annotations": boxes})

    def paint(self, split, id, grey):
        Image.fromarray(np.full((20, 30, 3), grey, np.uint8)).save(self.root / split / f"{id}.png")

    def file(self, split):
        return self.root / "annotations" / f"instances_{split}.json"

    def write(self, split, document):
        self.file(split).write_text(json.dumps(document))

    def move_box(self, split, number):
        document = json.loads(self.file(split).read_text())
        document["annotations"][number]["bbox"][0] += 1
        self.write(split, document)

    def keys(self):
        """The key of the index of `val`, those of its shards of proposals and of features, all of one image."""
        luigi.task_register.Register.clear_instance_cache()
        settings = {"dataset": str(self.root), "cache_dir": str(self.cache), "finetune_iterations": 0}
        features = tasks.ExtractFeatures(**settings, split="val", shard_size=1)
        for split in ("train", "val"):
            features.clone(tasks.IndexDataset, split=split).make_artefact()
        stages = features.clone(tasks.RegionProposals), features
        return features.index_task().key, *([shard.key for shard in stage.shards()] for stage in stages)


@pytest.fixture
def coco(tmp_path):
    yield Coco(tmp_path / "coco", tmp_path / "cache")
    luigi.task_register.Register.clear_instance_cache()


@pytest.mark.parametrize(("change", "index", "proposals", "features"), [
    (lambda coco: coco.move_box("val", 1), True, NOBODY, SECOND),
    (lambda coco: coco.paint("val", 1, 9), True, FIRST, FIRST),
    (lambda coco: coco.file("val").write_text(coco.file("val").read_text() + "\n"), True, NOBODY, NOBODY),
    (lambda coco: coco.file("val").touch(), False, NOBODY, NOBODY),
])
def test_a_change_redoes_the_shards_of_its_image_alone(coco, change, index, proposals, features):
    before = coco.keys()
    change(coco)
    after = coco.keys()
    assert (before[0] != after[0]) == index
    changed = [[number for number in (0, 1) if old[number] != new[number]] for old, new in zip(before[1:], after[1:])]
    assert changed == [proposals, features]


def test_another_place_is_the_same_data(coco, tmp_path):
    before = coco.keys()
    coco.root = coco.root.rename(tmp_path / "elsewhere")
    assert coco.keys() == before


def test_a_missing_split_tells_which_there_are(miniatures, coco):
    output = miniatures().run("IndexDataset", "--dataset", str(coco.root), "--split", "test", status=30)
    assert f"{coco.file('test')}: no such file; the splits of this data set are: train, val" in output


def test_the_limit_of_images_is_in_no_key_and_no_error_is_kept(coco):
    def index(**settings):
        luigi.task_register.Register.clear_instance_cache()
        return tasks.IndexDataset(dataset=str(coco.root), cache_dir=str(coco.cache), split="val", train_split="val", **settings)

    assert index().key == index(max_megapixels=0.0001).key
    with pytest.raises(DatasetError, match=r"1\.png: 30 x 20 pixels are 0\.0006 megapixels, more than the limit of 0\.0001;"):
        index(max_megapixels=0.0001).make_artefact()
    index(max_megapixels=0.0006).make_artefact()
    assert index().complete()


@pytest.mark.parametrize("place", ["annotations/instances_val.json", "val/1.png"])
def test_what_is_no_file_ends_the_run_at_once(coco, place):
    (coco.root / place).unlink()
    os.mkfifo(coco.root / place)
    luigi.task_register.Register.clear_instance_cache()
    index = tasks.IndexDataset(dataset=str(coco.root), cache_dir=str(coco.cache), split="val", train_split="val")
    with pytest.raises(DatasetError, match=rf"{place}: cannot be read \(it is a named pipe, not a regular file\)"):
        index.make_artefact()
