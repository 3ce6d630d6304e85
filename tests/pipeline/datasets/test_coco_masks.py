"""Splits in COCO's format that are read for their masks."""

import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.formats import read_split, split_files
from pipeline.datasets.masks import VOID
from pipeline.datasets.reading import MaskRules
from pipeline.errors import DatasetError
from pipeline.segmentation.label_maps import LabelMaps, label_names, usable

WIDTH, HEIGHT = 20, 12
CATEGORIES = [{"id": 90, "name": "zebra"}, {"id": 17, "name": "cat"}, {"id": 1, "name": "person"}]


def rectangle(x1, y1, x2, y2):
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


class Folder:
    def __init__(self, root, masks):
        self.root, self.masks, self.images, self.annotations = root, masks, [], []
        (root / "annotations").mkdir(parents=True)

    def image(self, id):
        self.images.append({"id": id, "file_name": f"{len(self.images)}.png", "width": WIDTH, "height": HEIGHT})
        content = io.BytesIO()
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), len(self.images), np.uint8)).save(content, "PNG")
        (self.root / f"{len(self.images) - 1}.png").write_bytes(content.getvalue())

    def object(self, image_id, corners=(2, 1, 10, 9), category_id=17, **values):
        x1, y1, x2, y2 = corners
        self.annotations.append({
            "id": len(self.annotations) + 1, "image_id": image_id, "category_id": category_id,
            "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": rectangle(*corners), **values,
        })

    def read(self, classes=None, masks=None, **rules):
        document = {"images": self.images, "categories": CATEGORIES, "annotations": self.annotations}
        (self.root / "annotations/instances_val.json").write_text(json.dumps(document))
        files = split_files(self.root, "val", masks=True)
        digests = {name: hashlib.sha256((self.root / name).read_bytes()).hexdigest() for name in files}
        return read_split(self.root, "val", classes, digests, masks=masks or MaskRules(drawn=self.masks), **rules)

    def problems(self, *args, **rules):
        with pytest.raises(DatasetError) as caught:
            self.read(*args, **rules)
        return caught.value.problems

    def labels(self, split):
        maps = LabelMaps(self.masks, label_names(split))
        return [maps.read(record) for record in split.images]

    def instances(self, record):
        with Image.open(self.masks / record.instance_mask.path) as image:
            return np.asarray(image)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "drawn").mkdir()
    folder = Folder(tmp_path / "coco", tmp_path / "drawn")
    folder.image(42)
    return folder


def test_masks_of_objects_in_any_order(folder):
    folder.image(7)
    folder.image(9)
    folder.object(7, (0, 0, 5, 5), 90)
    folder.object(42)
    runs = {"size": [HEIGHT, WIDTH], "counts": [18 * HEIGHT, 2 * HEIGHT]}
    folder.object(7, (18, 0, 20, 12), 1, iscrowd=1, segmentation=runs)
    folder.object(7, (10, 0, 12, 2), 17)
    split = folder.read()
    assert label_names(split).names == ("background", "cat", "zebra")
    assert [record.class_mask.path for record in split.images] == [f"SegmentationClass/{id}.png" for id in (42, 7, 9)]
    assert usable(split) == [0, 1, 2]
    first, second, third = folder.labels(split)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[1:9, 2:10] = 1
    np.testing.assert_array_equal(first, expected)
    expected[:] = 0
    expected[:5, :5], expected[:2, 10:12], expected[:, 18:] = 2, 1, VOID
    np.testing.assert_array_equal(second, expected)
    assert not third.any()
    instances = folder.instances(split.images[1])
    for number, (x1, y1, x2, y2) in enumerate(split.images[1].boxes.astype(int), 1):
        value = VOID if split.images[1].ignored[number - 1] else number
        assert (instances[y1:y2, x1:x2] == value).all()


def test_void_of_an_image(folder):
    """It lies below the objects, and an object's box may lie in it."""
    folder.object(42)
    folder.images[0]["void"] = {"size": [HEIGHT, WIDTH], "counts": [0, 3 * HEIGHT, 17 * HEIGHT]}
    split = folder.read()
    (labels,) = folder.labels(split)
    assert (labels[:, :2] == VOID).all()
    assert (labels[1:9, 2:10] == 1).all()
    assert (folder.instances(split.images[0])[1:9, 2:10] == 1).all()
    folder.images[0]["void"] = {"size": [1, 2], "counts": [2]}
    (problem,) = folder.problems()
    assert "image 42 (0.png) has runs of the size [1, 2] (height, width), its image is 20 x 12 as its void; correct it" in problem


def test_other_classes_become_background(folder):
    folder.object(42, category_id=1)
    folder.object(42, (12, 0, 14, 2), 90)
    split = folder.read(("zebra",), only_classes=True, every_class=True)
    assert label_names(split).names == ("background", "zebra")
    (labels,) = folder.labels(split)
    assert labels.sum() == 4
    assert "and background in the masks" in str(split.dropped[0])
    (problem,) = folder.problems(("zebro",), only_classes=True, every_class=True)
    assert "no object is of class 'zebro' (did you mean 'zebra'?)" in problem


def test_without_outlines(folder):
    folder.object(42, segmentation=[])
    folder.object(42)
    del folder.annotations[1]["segmentation"]
    (problem,) = folder.problems()
    assert problem.startswith("2 annotations without an outline; ")
    assert "annotation 1 (cat, image 42) has no outline" in problem


def test_what_is_dropped_becomes_void(folder):
    folder.object(42, segmentation=[[1, 2, 3, 4]])
    folder.object(42, (10, 0, 12, 2), 90)
    folder.object(42, (14, 0, 16, 2), 90, bbox=[14, 0, 0, 0])
    split = folder.read(on_bad_annotation="drop")
    (labels,) = folder.labels(split)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[1:9, 2:10], expected[:2, 10:12], expected[:2, 14:16] = VOID, 1, VOID
    np.testing.assert_array_equal(labels, expected)
    assert sum(remark.count for remark in split.dropped) == 2


def test_runs_of_another_size(folder):
    folder.object(42, segmentation={"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]})
    (problem,) = folder.problems()
    assert "annotation 1 (cat, image 42) has runs of the size [20, 12] (height, width), its image is 20 x 12" in problem


def test_ids_that_are_texts_stay_in_the_folder(folder):
    folder.image("../a b/é")
    folder.object("../a b/é")
    split = folder.read()
    assert split.images[1].class_mask.path == "SegmentationClass/..%2Fa b%2F%C3%A9.png"
    assert folder.labels(split)[1].any()


def test_more_objects_than_an_instance_mask_numbers(folder):
    for _ in range(255):
        folder.object(42)
    split = folder.read()
    assert split.images[0].instance_mask is None
    assert [remark.kind for remark in split.notes] == ["images without an instance mask"]
    assert set(folder.labels(split)[0].ravel().tolist()) == {0, 1}


def test_drawing_shows_its_progress(folder):
    folder.image(7)
    folder.object(42)
    seen = []

    def progress(images, total):
        for image in images:
            seen.append((image.id, total))
            yield image

    folder.read(masks=MaskRules(drawn=folder.masks, progress=progress))
    assert seen == [("42", 2), ("7", 2)]


def test_no_object_at_all(folder):
    (problem,) = folder.problems()
    assert "none of its 1 image(s) has an object" in problem
