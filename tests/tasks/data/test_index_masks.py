"""The index for segmentation: what its key depends on, where its masks are, and what detection makes of folders of masks."""

import json
import shutil

import luigi
import numpy as np
import pytest
from PIL import Image

import tasks
from pipeline.datasets.digits import CLASSES
from pipeline.datasets.masks import write_mask
from pipeline.errors import PipelineError
from pipeline.segmentation.label_maps import LabelMaps, label_names
from tasks.data.splits import load_split
from tests.pipeline.datasets.layouts import HEIGHT, WIDTH, Item, Voc, encoded, pixels_of


@pytest.fixture
def make(tmp_path):
    """make(stage, ...) -> a task on the data set in `tmp_path`/data."""

    def make(stage=tasks.IndexMasks, **settings):
        luigi.task_register.Register.clear_instance_cache()
        settings = {"dataset": str(tmp_path / "data"), **settings}
        return stage(cache_dir=str(tmp_path / "cache"), data_dir=str(tmp_path), **settings)

    yield make
    luigi.task_register.Register.clear_instance_cache()


@pytest.fixture
def voc(tmp_path):
    """A folder in VOC's layout: a cat in each of two images, and their masks."""
    root = tmp_path / "data"
    Voc(root, *(Item(number, encoded(pixels_of(number))) for number in (1, 2)))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[3:13, 2:12] = 1
    for number in (1, 2):
        write_mask(root / f"SegmentationClass/{number}.png", mask)
    return root


def read(task) -> list[np.ndarray]:
    split = load_split(task.artefact)
    return [LabelMaps(task.mask_root, label_names(split)).read(record) for record in split.images]


def computed(task):
    task.make_artefact()
    return task


def test_what_changes_the_key(make, voc):
    first, of_boxes = make().key, make(tasks.IndexDataset).key
    assert make(digits_seed=3, voc_mirror="http://a").key == first
    (voc / "classes.txt").write_text("background\ncat\ndog\n")
    assert make(tasks.IndexDataset).key == of_boxes
    assert (second := make().key) != first
    (voc / "ImageSets/Segmentation").mkdir()
    (voc / "ImageSets/Segmentation/train.txt").write_text("2\n")
    assert make(tasks.IndexDataset).key == of_boxes
    assert make().key not in (first, second)
    assert [record.id for record in load_split(computed(make()).artefact).images] == ["2"]


def test_figures_and_labels(make, voc):
    task = computed(make())
    figures = task.artefact.manifest["figures"]
    assert {name: figures[name] for name in ("images", "masks", "labels", "objects")} == {
        "images": 2, "masks": 2, "labels": 2, "objects": 2,
    }
    assert task.mask_root == voc
    assert [int(labels.sum()) for labels in read(task)] == [100, 100]


def test_the_test_split_has_the_labels_of_the_training_split(make, voc):
    shutil.copy(voc / "ImageSets/Main/train.txt", voc / "ImageSets/Main/test.txt")
    computed(make())
    test = computed(make(split="test"))
    assert test.requires()["train"].stage == "IndexMasks"
    assert label_names(load_split(test.artefact)) == label_names(load_split(make().artefact))


def test_a_folder_without_boxes(make, voc):
    shutil.rmtree(voc / "Annotations")
    (voc / "ImageSets/Main").rename(voc / "ImageSets/Segmentation")
    (voc / "classes.txt").write_text("road\ncar\n")
    task = computed(make())
    assert label_names(load_split(task.artefact)).names == ("road", "car")
    assert "rarest" not in task.artefact.manifest["figures"]
    with pytest.raises(PipelineError, match="it has class masks and no boxes: use it with the chains of segmentation"):
        make(tasks.IndexDataset).make_artefact()


def test_cocos_masks_belong_to_the_artefact(make, tmp_path):
    root = tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    Image.fromarray(pixels_of()).save(root / "1.png")
    square = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [2, 3, 10, 10], "segmentation": [[2, 3, 12, 3, 12, 13, 2, 13]]}
    document = {"images": [{"id": 7, "file_name": "1.png"}], "categories": [{"id": 3, "name": "cat"}], "annotations": [square]}
    (root / "annotations/instances_train.json").write_text(json.dumps(document))
    task = computed(make())
    assert task.mask_root == task.artefact.folder
    assert {"SegmentationClass/7.png", "SegmentationObject/7.png"} < set(task.artefact.manifest["files"])
    (labels,) = read(task)
    assert labels[3:13, 2:12].all()
    assert labels.sum() == 100
    boxes = computed(make(tasks.IndexDataset))
    assert load_split(boxes.artefact).images[0].class_mask is None


def test_digits_names_its_masks(make):
    settings = {"dataset": "digits", "digits_train_images": 2, "digits_val_images": 1, "digits_test_images": 1}
    task = make(**settings)
    computed(task.source())
    computed(task)
    split = load_split(task.artefact)
    assert label_names(split).names == ("background", *CLASSES)
    for record, labels in zip(split.images, read(task), strict=True):
        assert {split.classes[label] for label in record.labels} == {CLASSES[value - 1] for value in set(labels.flat) - {0, 255}}
    chosen = computed(make(**settings, classes=split.classes[split.images[0].labels[0]]))
    assert set(read(chosen)[0].flat) == {0, 1, 255}


def test_sbd_is_for_segmentation(make, tmp_path):
    with pytest.raises(PipelineError, match="--dataset sbd: is for segmentation; the boxes of its photographs are in voc2012"):
        make(tasks.IndexDataset, dataset="sbd").make_artefact()
    assert make(dataset="sbd").source().stage == "DownloadMasks"
    (tmp_path / "sbd").mkdir()
    assert make(dataset="sbd").source() is None
