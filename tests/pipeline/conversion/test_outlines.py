"""Masks of VOC's layout as outlines of COCO's: what is drawn from them again is what they were."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.conversion import outlines
from pipeline.conversion.convert import convert
from pipeline.datasets.formats import read_split, split_files
from pipeline.datasets.masks import VOID, write_mask
from pipeline.datasets.reading import MaskRules
from tests.pipeline.datasets.layouts import HEIGHT, WIDTH, Item, Voc, encoded, pixels_of

CAT, DOG = 1, 2


@pytest.fixture
def source(tmp_path):
    """Two cats whose boxes overlap, and a dog; the first cat has a pixel outside of its box. The second image has no masks."""
    objects = ("cat", 2, 2, 12, 12), ("cat", 8, 2, 20, 12), ("dog", 25, 5, 35, 25)
    items = Item(1, encoded(pixels_of(), "JPEG"), objects), Item(2, encoded(pixels_of(1), "JPEG"))
    root = Voc(tmp_path / "voc", *items).root
    write_mask(root / "SegmentationClass/1.png", class_mask())
    return root


def class_mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[2:12, 2:20], mask[5:25, 25:35], mask[4, 1] = CAT, DOG, CAT
    mask[5:25, 25] = VOID
    return mask


def instance_mask() -> np.ndarray:
    mask = class_mask()
    mask[mask == DOG], mask[2:12, 10:20] = 3, 2
    return mask


def drawn(root: Path, folder: Path, name: str, split: str = "train") -> tuple:
    """The records of a split in COCO's format, and their masks by field."""
    folder.mkdir(exist_ok=True)
    files = split_files(root, split, masks=True)
    digests = {file: hashlib.sha256((root / file).read_bytes()).hexdigest() for file in files}
    records = read_split(root, split, None, digests, masks=MaskRules(drawn=folder)).images
    return records, [np.asarray(Image.open(folder / getattr(record, name).path)) for record in records]


def test_classes_stay_as_they_are(source, tmp_path):
    converted = convert(source, tmp_path / "coco", "coco")
    _, (first, second) = drawn(tmp_path / "coco", tmp_path / "drawn", "class_mask")
    np.testing.assert_array_equal(first, class_mask())
    assert (second == VOID).all()
    assert converted.noted == {outlines.SHARED: 4 * 10}
    assert converted.lost == {}
    _, (first, _) = drawn(tmp_path / "coco", tmp_path / "drawn", "instance_mask")
    expected = class_mask()
    expected[2:12, 12:20], expected[2:12, 8:12], expected[class_mask() == DOG] = 2, VOID, 3
    np.testing.assert_array_equal(first, expected)
    document = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    assert [row["area"] for row in document["annotations"]] == [101, 120, 180, 0]


def test_masks_of_objects_come_first(source, tmp_path):
    write_mask(source / "SegmentationObject/1.png", instance_mask())
    assert convert(source, tmp_path / "coco", "coco").noted == {}
    for name, expected in ("class_mask", class_mask()), ("instance_mask", instance_mask()):
        _, (first, _) = drawn(tmp_path / "coco", tmp_path / "drawn", name)
        np.testing.assert_array_equal(first, expected)


def test_pixels_of_no_object_are_counted(source, tmp_path):
    (source / "classes.txt").write_text("background\ncat\ncow\ndog\n")
    assert convert(source, tmp_path / "coco", "coco").lost == {outlines.WITHOUT_OBJECT: 180}
    _, (first, _) = drawn(tmp_path / "coco", tmp_path / "drawn", "class_mask")
    assert not first[5:25, 26:35].any()


def test_values_without_a_name_are_left_out(source, tmp_path):
    """A user's choice of classes does not say which value is which."""
    assert convert(source, tmp_path / "dogs", "coco", classes=("dog",)).lost == {"masks": 1}
    (source / "classes.txt").write_text("background\ncat\ndog\n")
    assert convert(source, tmp_path / "coco", "coco", classes=("dog",)).lost == {outlines.WITHOUT_OBJECT: 181}


@pytest.mark.exhaustive
def test_animals(shared, tmp_path):
    """Each pixel of each class mask, and void, of photographs of PASCAL VOC."""
    root = shared / "datasets/animals5"
    if not root.is_dir():
        pytest.skip("animals5 absent")
    convert(root, tmp_path / "coco", "coco", splits=("smalltest",), link=True)
    records, masks = drawn(tmp_path / "coco", tmp_path / "drawn", "class_mask", "smalltest")
    for record, mask in zip(records, masks, strict=True):
        stem = Path(record.path).stem
        np.testing.assert_array_equal(mask, np.asarray(Image.open(root / f"SegmentationClass/{stem}.png")))
