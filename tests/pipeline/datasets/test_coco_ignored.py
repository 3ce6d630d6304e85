"""COCO's marks of annotations that are no ordinary objects: crowds, regions to ignore, difficult objects."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.formats import read_split, split_files
from pipeline.datasets.records import NO_CLASS
from pipeline.errors import DatasetError

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}, {"id": 9, "name": "void"}]
CAT, DOG, VOID = 3, 8, 9


@pytest.fixture
def read(tmp_path):
    """read(objects, classes) -> Split: each object is the number of its image, its category and its further values."""

    def make(objects, classes=None, on_bad_annotation="error"):
        images = [{"id": number, "file_name": f"{number}.png"} for number in range(1, 3)]
        annotations = [
            {"id": id, "image_id": image, "category_id": category, "bbox": [id, 2, 4, 5], **values}
            for id, (image, category, values) in enumerate(objects, 1)
        ]
        for folder in ("annotations", "val"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for image in images:
            Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "val" / image["file_name"])
        document = {"images": images, "categories": CATEGORIES, "annotations": annotations}
        (tmp_path / "annotations/instances_val.json").write_text(json.dumps(document))
        digests = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in split_files(tmp_path, "val")}
        return read_split(tmp_path, "val", classes, digests, on_bad_annotation=on_bad_annotation)

    return make


@pytest.mark.parametrize(("values", "ignored", "difficult"), [
    ({}, False, False),
    ({"ignore": 1}, True, False),
    ({"ignore": True, "iscrowd": False}, True, False),
    ({"ignore": 1.0}, True, False),
    ({"iscrowd": 1, "segmentation": {"counts": [1, 2], "size": [20, 30]}}, True, False),
    ({"iscrowd": True}, True, False),
    ({"iscrowd": 1, "ignore": 0}, True, False),
    ({"iscrowd": 1, "ignore": 1, "difficult": 1}, True, True),
    ({"difficult": 1}, False, True),
    ({"difficult": True, "ignore": None}, False, True),
    ({"iscrowd": 0, "ignore": 0, "difficult": 0}, False, False),
    ({"iscrowd": None, "ignore": False}, False, False),
])
def test_marks(read, values, ignored, difficult):
    first, second = read([(1, CAT, {}), (1, DOG, values), (2, DOG, {})]).images
    assert first.ignored.tolist() == [False, ignored]
    assert first.difficult.tolist() == [False, difficult]
    assert first.boxes.tolist() == [[1, 2, 5, 7], [2, 2, 6, 7]]
    assert not second.ignored.any()


@pytest.mark.parametrize(("values", "message"), [
    ({"ignore": 2}, "has ignore 2; expected 0 or 1"),
    ({"ignore": "true"}, "has ignore 'true'; expected 0 or 1"),
    ({"difficult": [1]}, "has difficult [1]; expected 0 or 1"),
    ({"iscrowd": -1}, "has iscrowd -1; expected 0 or 1"),
])
def test_other_marks_are_errors(read, values, message):
    with pytest.raises(DatasetError, match="1 problem") as caught:
        read([(1, CAT, {}), (1, DOG, values)])
    assert message in str(caught.value).replace("\n", " ")


def test_a_class_of_regions_to_ignore_alone_is_no_class(read):
    """Some data sets have a category of its own for what is to be ignored, whatever the class."""
    split = read([(1, CAT, {}), (1, VOID, {"ignore": 1}), (2, CAT, {"iscrowd": 1})])
    assert split.classes == ("cat",)
    assert [image.labels.tolist() for image in split.images] == [[0, NO_CLASS], [0]]
    assert [image.ignored.tolist() for image in split.images] == [[False, True], [True]]


def test_a_region_to_ignore_may_be_of_a_class_that_the_split_does_not_have(read):
    objects = [(1, CAT, {}), (1, DOG, {"iscrowd": 1}), (1, VOID, {"ignore": True})]
    assert read(objects, ["cat"]).images[0].labels.tolist() == [0, NO_CLASS, NO_CLASS]
    with pytest.raises(DatasetError, match="is of no known class"):
        read([*objects, (1, DOG, {})], ["cat"])


def test_regions_to_ignore_are_checked_like_objects(read):
    with pytest.raises(DatasetError, match="not inside the image"):
        read([(1, CAT, {}), (1, DOG, {"iscrowd": 1, "bbox": [0, 0, 99, 9]})])
    split = read([(1, CAT, {}), (1, DOG, {"iscrowd": 1, "bbox": [0, 0, 0, 9]})], on_bad_annotation="drop")
    assert (len(split.images[0].boxes), len(split.dropped)) == (1, 1)


@pytest.mark.parametrize("classes", [None, ["cat", "dog"]])
def test_regions_to_ignore_alone_are_nothing_to_work_on(read, classes):
    with pytest.raises(DatasetError, match=r"none of its 2 image\(s\) has an object"):
        read([(1, CAT, {"iscrowd": 1}), (2, DOG, {"ignore": 1})], classes)
