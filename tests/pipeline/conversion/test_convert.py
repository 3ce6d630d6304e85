"""Conversions worked by hand, round trips of drawn data sets, and what happens when something fails."""

import json
import os
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from pipeline.conversion import convert as module
from pipeline.conversion.convert import convert
from pipeline.conversion.naming import target_names
from pipeline.conversion.writers import WRITERS
from pipeline.datasets.whole import read_dataset
from pipeline.errors import DatasetError, PipelineError
from tests.pipeline.datasets.layouts import Coco, Item, Voc, encoded, pixels_of
from tests.pipeline.datasets.tool_folders import TOOLS, write
from tests.pipeline.datasets.yolo_folders import YOLO_TOOLS
from tests.tiers import examples

WIDTH, HEIGHT = 40, 30
PHOTO = encoded(pixels_of(), "JPEG")


@pytest.fixture
def voc(tmp_path):
    """Two images; the second without objects."""
    return Voc(tmp_path / "voc", Item(1, PHOTO, (("dog", 10, 6, 20, 21), ("cat", 0, 0, 40, 30))),
               Item(2, encoded(pixels_of(1), "JPEG"), ())).root


def test_voc_to_yolo_by_hand(voc, tmp_path):
    converted = convert(voc, tmp_path / "yolo", "yolo")
    assert (tmp_path / "yolo/labels/1.txt").read_text() == "1 0.375 0.45 0.25 0.5\n0 0.5 0.5 1 1\n"
    assert (tmp_path / "yolo/labels/2.txt").read_text() == ""
    assert (tmp_path / "yolo/train.txt").read_text() == "./images/1.jpg\n./images/2.jpg\n"
    assert yaml.safe_load((tmp_path / "yolo/data.yaml").read_text()) == {"train": "train.txt", "names": {0: "cat", 1: "dog"}}
    assert (tmp_path / "yolo/images/1.jpg").read_bytes() == PHOTO
    assert (converted.lost, converted.differences.boxes, converted.differences.objects) == ({}, 0, 2)


def test_voc_to_coco_by_hand(voc, tmp_path):
    convert(voc, tmp_path / "coco", "coco")
    document = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    assert document == {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 40, "height": 30},
                   {"id": 2, "file_name": "2.jpg", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 2, "bbox": [10, 6, 10, 15], "area": 150, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 30], "area": 1200, "iscrowd": 0}],
    }


def test_pycocotools_reads_what_is_written(tmp_path, capsys):
    convert(coco_with(tmp_path / "coco"), tmp_path / "new", "coco")
    truth = COCO(str(tmp_path / "new/annotations/instances_train.json"))
    annotations = truth.loadAnns(truth.getAnnIds())
    assert [row["bbox"] for row in annotations] == [[0, 0, 30, 20], [1, 1, 5, 5], [2, 2, 10, 10]]
    assert [row["iscrowd"] for row in annotations] == [1, 0, 0]
    assert (annotations[2]["keypoints"], annotations[2]["num_keypoints"]) == ([3, 4, 2, 5.5, 6, 1, 0, 0, 0], 2)
    assert truth.loadCats([1])[0]["skeleton"] == [[1, 2], [1, 3]]


def test_coco_to_voc_by_hand(tmp_path):
    convert(Coco(tmp_path / "coco", Item(7, PHOTO, (("cat", 2, 3, 12.5, 13),))).root, tmp_path / "voc", "voc")
    root = ElementTree.parse(tmp_path / "voc/Annotations/7.xml").getroot()
    assert [root.findtext(name) for name in ("filename", "size/width", "size/height", "size/depth")] == ["7.jpg", "40", "30", "3"]
    assert [corner.text for corner in root.find("object/bndbox")] == ["3", "4", "12.5", "13"]
    assert root.findtext("object/name") == "cat"
    assert (tmp_path / "voc/ImageSets/Main/train.txt").read_text() == "7\n"


def coco_with(root, images=1, **marks):
    """A crowd, a difficult object and an object with keypoints."""
    keypoints = {"keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2], [1, 3]]}
    annotations = [
        {"bbox": [0, 0, 30, 20], "iscrowd": 1}, {"bbox": [1, 1, 5, 5], "difficult": 1},
        {"bbox": [2, 2, 10, 10], "keypoints": [3, 4, 2, 5.5, 6, 1, 0, 0, 0]},
    ]
    rows = [{"id": id, "image_id": 1, "category_id": 1, **row} for id, row in enumerate(annotations, 1)]
    document = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "cat", **keypoints}],
                "annotations": rows}
    return write(root, {"annotations/instances_train.json": json.dumps(document), "images/a.jpg": PHOTO})


@pytest.mark.parametrize(("format", "lost", "boxes"), [
    ("voc", {"regions to ignore": 1}, 2), ("coco", {}, 3),
    ("yolo", {"regions to ignore": 1, "marks of difficult objects": 1, "limbs between keypoints": 2}, 2),
])
def test_what_a_format_does_not_have_is_counted(tmp_path, format, lost, boxes):
    converted = convert(coco_with(tmp_path / "coco"), tmp_path / "new", format)
    assert converted.lost == lost
    (image,) = read_dataset(tmp_path / "new").splits["train"].images
    assert len(image.boxes) == boxes
    assert image.ignored.sum() == (format == "coco")
    assert image.difficult.sum() == (format != "yolo")
    np.testing.assert_allclose(image.keypoints[-1], [[3, 4, 2], [5.5, 6, 1], [0, 0, 0]], atol=1e-5)
    skeleton = read_dataset(tmp_path / "new").splits["train"].skeleton
    assert (skeleton.names, skeleton.flip_pairs) == (("nose", "left_eye", "right_eye"), ((1, 2),))
    assert skeleton.limbs == (((0, 1), (0, 2)) if format != "yolo" else ())


def test_masks_come_along_to_voc_and_are_counted_in_yolo(tmp_path, voc):
    mask = encoded(np.zeros((HEIGHT, WIDTH), np.uint8))
    write(voc, {"SegmentationClass/1.png": mask, "SegmentationObject/1.png": mask, "classes.txt": "background\ncat\n"})
    assert convert(voc, tmp_path / "again", "voc").lost == {}
    assert (tmp_path / "again/classes.txt").read_text() == "background\ncat\n"
    assert (tmp_path / "again/SegmentationObject/1.png").read_bytes() == mask
    assert convert(voc, tmp_path / "yolo", "yolo").lost == {"masks": 2}


# Of each tool's folder: it can be converted into all three formats, whatever its layout.
ALL_TOOLS = {**TOOLS, **YOLO_TOOLS}


@pytest.mark.parametrize("name", [
    name if name in ("Roboflow", "CVAT's YOLO 1.1", "labelImg", "Label Studio's COCO") else
    pytest.param(name, marks=pytest.mark.exhaustive) for name in ALL_TOOLS
])
@pytest.mark.parametrize("format", WRITERS)
def test_every_layout_can_be_converted(tmp_path, name, format):
    files, splits = ALL_TOOLS[name]
    source = write(tmp_path / "source", files)
    convert(source, tmp_path / "new", format)
    before, after = read_dataset(source), read_dataset(tmp_path / "new")
    assert after.format == format
    assert sorted(after.splits) == sorted(before.splits) == sorted(splits)
    assert {image.digest for image in before.images().values()} == {image.digest for image in after.images().values()}


def test_images_of_one_name_get_their_folders_names(tmp_path):
    names = target_names(tmp_path, ["train/a.jpg", "valid/a.JPG", "valid/b.png", "x/B.jpg", "train_a.jpg", "c d.jpg"])
    assert list(names.values()) == ["train_a_2.jpg", "valid_a.JPG", "valid_b.png", "x_B.jpg", "train_a.jpg", "c d.jpg"]
    with pytest.raises(DatasetError, match=r"a\.gif: has another suffix; expected one of \.jpg, .*; save it as PNG"):
        target_names(tmp_path, ["a.gif"])


def test_links(voc, tmp_path):
    convert(voc, tmp_path / "coco", "coco", link=True)
    image = tmp_path / "coco/images/1.jpg"
    assert image.is_symlink()
    assert image.read_bytes() == PHOTO
    assert not (tmp_path / "coco/annotations/instances_train.json").is_symlink()


def test_the_rules_of_reading_hold(tmp_path):
    """Boxes of a photograph that is turned when it is read; VOC's corners that count from 0."""
    photo = encoded(pixels_of(), "JPEG", orientation=6)
    root = Voc(tmp_path / "voc", Item(1, photo, (("cat", 0, 0, HEIGHT, 20),), size=(HEIGHT, WIDTH)), first=0).root
    with pytest.raises(DatasetError, match="has the mark of rotation"):
        convert(root, tmp_path / "new", "yolo")
    converted = convert(root, tmp_path / "yolo", "yolo", exif="upright", voc_first_pixel=0)
    assert (tmp_path / "yolo/labels/1.txt").read_text() == "0 0.5 0.25 1 0.5\n"
    assert "--exif upright" in str(converted.source.splits["train"].notes[0])
    convert(root, tmp_path / "again", "voc", exif="upright", voc_first_pixel=0)
    assert "<xmin>1</xmin>" in (tmp_path / "again/Annotations/1.xml").read_text()


def test_chosen_splits_and_classes(voc, tmp_path):
    write(voc, {"ImageSets/Main/val.txt": "1\n", "ImageSets/Main/cat_val.txt": "1\n"})
    converted = convert(voc, tmp_path / "new", "yolo", splits=["val"], classes=["dog"])
    assert (tmp_path / "new/labels/1.txt").read_text() == "0 0.375 0.45 0.25 0.5\n"
    assert sorted(converted.source.left_out) == ["cat_val", "train"]
    assert sorted(os.listdir(tmp_path / "new/images")) == ["1.jpg"]
    assert converted.source.splits["val"].dropped[0].count == 1


def test_classes_keep_the_order_of_their_numbers(tmp_path):
    source = write(tmp_path / "a", {"data.yaml": "train: images\nnames: [zebra, cat, ape]\n", "images/a.jpg": PHOTO,
                                    "labels/a.txt": "0 0.5 0.5 1 1\n2 0.5 0.5 0.5 0.5\n"})
    assert convert(source, tmp_path / "b", "coco").source.classes == ("zebra", "cat", "ape")
    assert read_dataset(tmp_path / "b").classes == ("zebra", "ape")  # COCO's classes are those with an object
    convert(tmp_path / "b", tmp_path / "c", "yolo")
    assert (tmp_path / "c/labels/a.txt").read_text() == "0 0.5 0.5 1 1\n1 0.5 0.5 0.5 0.5\n"


def test_a_target_that_exists_is_not_touched(voc, tmp_path):
    (tmp_path / "there").mkdir()
    for target in ("there", "voc/JPEGImages/1.jpg"):
        with pytest.raises(PipelineError, match="exists already; give the name of a new folder"):
            convert(voc, tmp_path / target, "coco")
    with pytest.raises(PipelineError, match="lies in the data set"):
        convert(voc, voc / "new", "coco")
    with pytest.raises(PipelineError, match="no such folder; make it first"):
        convert(voc, tmp_path / "no/new", "coco")
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt(), SystemExit(143)])
def test_a_failure_leaves_nothing(voc, tmp_path, monkeypatch, error):
    def fail(*arguments, **settings):
        raise error

    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(module, "compare", fail)
    with pytest.raises(type(error)):
        convert(voc, tmp_path / "new", "yolo")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_faulty_data_set_is_told_before_anything_is_written(voc, tmp_path):
    (voc / "Annotations/1.xml").write_text("<annotation/>")
    with pytest.raises(DatasetError, match="none of its 2 image"):
        convert(voc, tmp_path / "new", "yolo")
    assert [path.name for path in tmp_path.iterdir()] == ["voc"]


def test_a_wrong_writer_is_noticed(voc, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.conversion.writers.DECIMALS", 2)
    with pytest.raises(PipelineError, match=r"split 'train', image JPEGImages/1\.jpg: a box or a keypoint moved by"):
        convert(voc, tmp_path / "new", "yolo")
    assert not (tmp_path / "new").exists()


def test_an_image_with_other_objects_in_another_split(tmp_path):
    root = Coco(tmp_path / "coco", Item(1, PHOTO), split="train").root
    text = (root / "annotations/instances_train.json").read_text()
    write(root, {"annotations/instances_val.json": text.replace("[2, 3,", "[4, 3,"), "images/1.jpg": PHOTO})
    (root / "train/1.jpg").unlink()
    with pytest.raises(DatasetError, match="has other objects in split 'val' than in split 'train'"):
        convert(root, tmp_path / "new", "voc")


# Boxes that float32 holds, so that only the formats round.
sides = st.integers(1, 400)
numbers = st.floats(0, 1, width=32)


@st.composite
def items(draw, id):
    width, height = draw(sides), draw(sides)
    objects = []
    for _ in range(draw(st.integers(0, 4))):
        ends = [sorted(draw(st.tuples(numbers, numbers))) for _ in range(2)]
        (x1, x2), (y1, y2) = ([np.float32(side * end) for end in pair] for pair, side in zip(ends, (width, height)))
        if min(x2 - x1, y2 - y1) > 0.01:
            objects.append((draw(st.sampled_from(["cat", "a dog", "on", "ä & <b>", "7"])), *map(float, (x1, y1, x2, y2))))
    return Item(id, encoded(np.full((height, width, 3), id, np.uint8)), tuple(objects), (width, height))


@given(first=items(id=1), second=items(id=2))
@settings(max_examples=examples(30), deadline=None)
def test_round_trips_lose_nothing_but_rounding(first, second):
    if not (first.objects or second.objects):
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Coco(Path(folder, "start"), first, second).root
        steps = [source]
        for number, format in enumerate(("yolo", "voc", "coco", "yolo")):
            steps.append(Path(folder, f"{number}"))
            convert(steps[-2], steps[-1], format)
        start, end = (read_dataset(step).splits["train"] for step in (steps[0], steps[-1]))
        assert start.classes == tuple(sorted(start.classes))
        for item, before, after in zip((first, second), start.images, end.images):
            assert [start.classes[label] for label in before.labels] == [end.classes[label] for label in after.labels]
            assert [name for name, *_ in item.objects] == [end.classes[label] for label in after.labels]
            # Twice half a unit of the ninth decimal for the centre and half of it for the side; float32 rounds after each step.
            bound = 2 * 0.75e-9 * max(item.size) + 4 * np.spacing(np.float32(max(item.size)))
            boxes = np.array([box for _, *box in item.objects]).reshape(-1, 4)
            np.testing.assert_allclose(after.boxes, boxes, atol=bound, rtol=0)
