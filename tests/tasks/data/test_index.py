"""Indexing: which stages run again when the user's own folder changes, and damage to a data set that a stage made."""

import json
import os
import shutil
from pathlib import Path

import luigi
import numpy as np
import pytest
from PIL import Image

import tasks
from pipeline.datasets.faults import Remark
from pipeline.datasets.records import ImageRecord, Split
from pipeline.errors import DatasetError, PipelineError
from pipeline.proposals.files import write_npz
from tasks.data.splits import write_index
from tasks.engine import digests
from tasks.engine.artefacts import DamagedArtefact
from tasks.engine.digests import canonical_json
from tests.pipeline.datasets.tool_folders import write, xml

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
        """The key of the index of `val`, and the keys of its shards of proposals and features; each shard has one image."""
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


class TestRegionsToIgnore:
    def task(self, coco, stage=tasks.IndexDataset, **settings):
        luigi.task_register.Register.clear_instance_cache()
        return stage(dataset=str(coco.root), cache_dir=str(coco.cache), split="val", train_split="val", **settings)

    def index(self, coco, classes=(), **values):
        """The figures and the image records of `val`, whose second object has these values."""
        document = json.loads(coco.file("val").read_text())
        document["categories"] = [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}]
        document["annotations"][1].update(values)
        coco.write("val", document)
        task = self.task(coco, classes=classes)
        task.make_artefact()
        return task.artefact.manifest["figures"], task.artefact.json("index.json")["images"]

    def test_are_counted_apart_and_told(self, coco, caplog):
        with caplog.at_level("INFO", "stages"):
            figures, images = self.index(coco, ignore=1)
        assert (figures["objects"], figures["ignored"], figures["rarest"]) == (1, 1, "cat 1")
        assert "objects 1" in caplog.text
        assert "ignored 1" in caplog.text
        assert "ignored" not in images[0]
        assert (images[1]["ignored"], images[1]["difficult"]) == ([True], [False])

    def test_nothing_is_told_where_there_is_none(self, coco):
        figures, images = self.index(coco, ignore=0, iscrowd=0)
        assert (figures["objects"], "ignored" in figures) == (2, False)
        assert not any("ignored" in image for image in images)

    def test_change_the_shard_of_their_image_alone(self, coco):
        _, proposals, features = coco.keys()
        self.index(coco, iscrowd=1)
        assert coco.keys()[1] == proposals
        assert [old == new for old, new in zip(features, coco.keys()[2], strict=True)] == [True, False]

    def test_a_class_to_train_on_needs_an_object(self, coco):
        assert self.index(coco, category_id=8, iscrowd=1)[0]["classes"] == 1
        with pytest.raises(PipelineError, match="no object is of class 'dog'"):
            self.index(coco, classes=("cat", "dog"))

    def test_are_no_objects_that_proposals_should_cover(self, coco, tmp_path):
        """The proposals cover the object of image 1 and nothing of image 2, where the region is."""
        self.index(coco, iscrowd=1)
        covering = {f"{id}": np.array([[1, 2, 4, 6], [20, 10, 29, 19]], np.float32)[id - 1:] for id in (1, 2)}
        write_npz(tmp_path / "boxes.npz", list(covering), list(covering.values()))
        quality = self.task(coco, tasks.ProposalQuality, proposals=str(tmp_path / "boxes.npz"))
        proposals = quality.requires()["proposals"]
        for task in (*proposals.shards(), proposals, quality):
            task.make_artefact()
        document = quality.artefact.json("quality.json")
        assert (document["objects"], quality.artefact.manifest["figures"]["average_recall"]) == (1, 1)


def test_another_place_is_the_same_data(coco, tmp_path):
    before = coco.keys()
    coco.root = coco.root.rename(tmp_path / "elsewhere")
    assert coco.keys() == before


def test_a_missing_split_tells_which_there_are(miniatures, coco):
    output = miniatures().run("IndexDataset", "--dataset", str(coco.root), "--split", "test", status=30)
    assert f"{coco.root}: has no split 'test' (annotations/instances_SPLIT.json); the splits of this data set are: " in output


@pytest.mark.parametrize("number", [0, 1, 3])
def test_an_index_is_canonical_json(tmp_path, number):
    objects = np.float32([[0, 0.5, 10, 1 / 3]]), np.array([0]), np.array([True])
    images = tuple(ImageRecord(f"{id}", f"ä/{id}.jpg", "ab", 640, 480, *objects) for id in range(number))
    split = Split("train", ('"images":[]', "ö"), images, (Remark('"images":[]', "mend it", 1, ("a",)),), mirror=False)
    write_index(tmp_path / "index.json", split)
    assert (tmp_path / "index.json").read_text() == canonical_json(split.to_json()) + "\n"


@pytest.fixture(scope="module")
def digits_settings(tmp_path_factory):
    """Settings that make the embedded data set."""
    cache = tmp_path_factory.mktemp("digits") / "cache"
    settings = {"digits_train_images": 10, "digits_val_images": 1, "digits_test_images": 10, "cache_dir": str(cache)}
    tasks.GenerateDigits(**settings).make_artefact()
    return settings


class TestDamagedSource:
    """The manifest gives the digests of a data set that a stage made; no file is hashed for the index."""

    @pytest.fixture
    def index(self, digits_settings, tmp_path):
        luigi.task_register.Register.clear_instance_cache()
        shutil.copytree(digits_settings["cache_dir"], tmp_path / "cache")
        yield tasks.IndexDataset(**{**digits_settings, "cache_dir": str(tmp_path / "cache")})
        luigi.task_register.Register.clear_instance_cache()

    def flip(self, path: Path) -> None:
        """Changes a byte in the middle, and keeps size and modification time."""
        status, content = path.stat(), bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def test_digests_are_those_of_the_manifest(self, index, monkeypatch):
        monkeypatch.setattr(digests, "digest_file", pytest.fail)
        recorded = index.source().artefact.manifest["files"]
        file_digests = index.file_digests()
        assert len(file_digests) == 42  # list, keypoints; of each of 10 images the file, the annotation and two masks
        assert file_digests == {name: recorded[f"digits/{name}"]["sha256"] for name in file_digests}

    @pytest.mark.parametrize("name", [
        "JPEGImages/train00003.jpg", "Annotations/train00004.xml", "ImageSets/Main/train.txt",
    ])
    @pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
    def test_damage_is_told_before_indexing(self, index, name, damage):
        path = index.root / name
        {"flip": self.flip, "cut": lambda path: os.truncate(path, 20), "remove": Path.unlink}[damage](path)
        with pytest.raises(DamagedArtefact, match=f"{name}: .*(remove|moved aside)") as error:
            index.make_artefact()
        assert str(path) in str(error.value)
        assert "indexed" not in str(error.value)
        assert not index.complete()

    def test_a_list_that_was_not_made_is_told(self, index):
        (index.root / "ImageSets/Main/mine.txt").write_text("train00001\n")
        with pytest.raises(DamagedArtefact, match=r"mine\.txt: no such file in the artefact's manifest"):
            index.clone(split="mine", train_split="mine").make_artefact()

    def test_a_split_that_there_is_none_of_is_no_damage(self, index):
        with pytest.raises(PipelineError, match="the splits of this data set are: test, train, val; give one") as error:
            index.clone(split="dev", train_split="dev").make_artefact()
        assert not isinstance(error.value, DamagedArtefact)

    @pytest.mark.parametrize("method", [  # in threads and in processes
        "balanced", pytest.param("selectivesearch", marks=pytest.mark.exhaustive),
    ])
    def test_damage_after_indexing_is_told_by_the_stage_that_reads_the_image(self, index, method):
        index.make_artefact()
        self.flip(index.root / "JPEGImages/train00002.jpg")
        shard = index.clone(tasks.RegionProposals, proposals=method, max_proposals=5, shard_size=5, shard=0, threads=1)
        with pytest.raises(DamagedArtefact, match=r"train00002\.jpg: .*(remove|moved aside)"):
            shard.make_artefact()

    def test_a_changed_image_of_a_users_own_folder_is_no_damage(self, coco):
        settings = {"dataset": str(coco.root), "cache_dir": str(coco.cache), "shard_size": 2, "max_proposals": 5, "threads": 1}
        shard = tasks.RegionProposals(**settings, shard=0)
        shard.index_task().make_artefact()
        coco.paint("train", 1, 9)
        with pytest.raises(PipelineError, match=r"1\.png: changed since it was indexed; run again, so that") as error:
            shard.make_artefact()
        assert not isinstance(error.value, DamagedArtefact)


def test_the_limit_of_images_is_in_no_key_and_no_error_is_kept(coco):
    def index(**settings):
        luigi.task_register.Register.clear_instance_cache()
        return tasks.IndexDataset(dataset=str(coco.root), cache_dir=str(coco.cache), split="val", train_split="val", **settings)

    assert index().key == index(max_megapixels=0.0001).key
    with pytest.raises(DatasetError, match=r"1\.png: 30 x 20 pixels are 0\.0006 megapixels, more than the limit of 0\.0001;"):
        index(max_megapixels=0.0001).make_artefact()
    index(max_megapixels=0.0006).make_artefact()
    assert index().complete()


def test_a_folder_of_one_split_is_divided(tmp_path):
    files = {f"{id}{suffix}": content for id in "abcde" for suffix, content in ((".xml", xml()), (".jpg", None))}
    write(tmp_path / "photos", files)
    settings = {"dataset": str(tmp_path / "photos"), "cache_dir": str(tmp_path / "cache"), "test_fraction": 0.4}
    indexes = [tasks.IndexDataset(**settings, split=split) for split in ("train", "test")]
    for index in indexes:
        index.make_artefact()
    ids = [[image["id"] for image in index.artefact.json("index.json")["images"]] for index in indexes]
    assert [len(part) for part in ids] == [3, 2]
    assert sorted(ids[0] + ids[1]) == list("abcde")
    assert indexes[0].key != indexes[0].clone(test_fraction=0.2).key
    luigi.task_register.Register.clear_instance_cache()


@pytest.mark.parametrize("place", ["annotations/instances_val.json", "val/1.png"])
def test_what_is_no_file_ends_the_run_at_once(coco, place):
    (coco.root / place).unlink()
    os.mkfifo(coco.root / place)
    luigi.task_register.Register.clear_instance_cache()
    index = tasks.IndexDataset(dataset=str(coco.root), cache_dir=str(coco.cache), split="val", train_split="val")
    with pytest.raises(DatasetError, match=rf"{place}: cannot be read \(it is a named pipe, not a regular file\)"):
        index.make_artefact()
