"""Folders as annotation tools write them, after their documentation: two images of 20 x 12 pixels, each with a cat."""

import hashlib
import io
import json
import os

import numpy as np
from PIL import Image

from pipeline.datasets.formats import read_split, split_files

WIDTH, HEIGHT = 20, 12
BOX = [2.0, 1.0, 10.0, 9.0]  # ours


def jpeg(grey=0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), grey, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def xml(filename="a.jpg", folder="", path="", extra="") -> str:
    """An annotation in VOC's format as the tools write it, with what we do not read."""
    return (
        f"<annotation><folder>{folder}</folder><filename>{filename}</filename><path>{path}</path>"
        f"<source><database>Unknown</database></source><size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        f"<segmented>0</segmented><object><name>cat</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>0</difficult><occluded>0</occluded>{extra}"
        "<bndbox><xmin>3</xmin><ymin>2</ymin><xmax>10</xmax><ymax>9</ymax></bndbox></object></annotation>"
    )


def instances(*names, first_id=1, categories=None, **extra) -> str:
    categories = categories or [{"id": 1, "name": "cat", "supercategory": ""}]
    images = [{"id": id, "file_name": name, "width": WIDTH, "height": HEIGHT} for id, name in enumerate(names, first_id)]
    objects = [{"id": id, "image_id": id, "category_id": categories[-1]["id"], "segmentation": [], "area": 64.0, "iscrowd": 0,
                "bbox": [2, 1, 8, 8], **extra} for id in range(first_id, first_id + len(names))]
    return json.dumps({"info": {"year": 2026}, "licenses": [{"id": 0}], "images": images, "categories": categories,
                       "annotations": objects})


def write(root, files):
    """Writes files by name; None is an image."""
    for number, (name, content) in enumerate(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = jpeg(number) if content is None else content
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def digests_of(root, split, **settings):
    files = [name for name in split_files(root, split, **settings) if os.path.isfile(root / name)]
    return {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in files}


def read(root, split, classes=None, *, test_fraction=0, **rules):
    digests = digests_of(root, split, test_fraction=test_fraction)
    return read_split(root, split, classes, digests, test_fraction=test_fraction, **rules)


ROBOFLOW = [{"id": 0, "name": "cat", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "cat"}]
A, B = "IMG_1_jpg.rf.0a1b", "IMG_2_jpg.rf.2c3d"
# The files of each, and of each of its splits the images with their ids.
TOOLS = {
    "COCO": (
        {"annotations/instances_train2017.json": instances("1.jpg", "2.jpg"), "train2017/1.jpg": None, "train2017/2.jpg": None,
         "annotations/captions_train2017.json": '{"images": [], "annotations": []}', "annotations/instances_val2017.json":
         instances("7.jpg", first_id=7), "val2017/7.jpg": None},
        {"train2017": {"1": "train2017/1.jpg", "2": "train2017/2.jpg"}, "val2017": {"7": "val2017/7.jpg"}}),
    "Ultralytics' COCO": (
        {"annotations/instances_train2017.json": instances("1.jpg"), "images/train2017/1.jpg": None,
         "labels/train2017/1.txt": "0 0.5 0.5 0.1 0.1"},
        {"train2017": {"1": "images/train2017/1.jpg"}}),
    "CVAT's COCO 1.0": (
        {"annotations/instances_default.json": instances("a.jpg", "sub/b.jpg"), "images/default/a.jpg": None,
         "images/default/sub/b.jpg": None},
        {"default": {"1": "images/default/a.jpg", "2": "images/default/sub/b.jpg"}}),
    "CVAT's COCO 1.0, older": (
        {"annotations/instances_default.json": instances("a.jpg", "b.jpg"), "images/a.jpg": None, "images/b.jpg": None},
        {"default": {"1": "images/a.jpg", "2": "images/b.jpg"}}),
    "CVAT's VOC 1.1": (
        {"ImageSets/Main/default.txt": "a\nsub/b\n", "labelmap.txt": "# label:color_rgb:parts:actions\ncat:1,2,3::\n",
         "Annotations/a.xml": xml(), "JPEGImages/a.jpg": None,
         "Annotations/sub/b.xml": xml("sub/b.jpg", "sub"), "JPEGImages/sub/b.jpg": None},
        {"default": {"a": "JPEGImages/a.jpg", "sub/b": "JPEGImages/sub/b.jpg"}}),
    "Datumaro's COCO": (
        {"annotations/instances_train.json": instances("a.jpg"), "images/train/a.jpg": None,
         "annotations/image_info_train.json": instances("a.jpg")},
        {"train": {"1": "images/train/a.jpg"}}),
    "FiftyOne's COCO": (
        {"labels.json": instances("a.jpg", "b.jpg"), "data/a.jpg": None, "data/b.jpg": None},
        {"all": {"1": "data/a.jpg", "2": "data/b.jpg"}}),
    "FiftyOne's COCO by split": (
        {"info.json": '{"name": "coco-2017"}', "train/labels.json": instances("a.jpg"), "train/data/a.jpg": None,
         "validation/labels.json": instances("b.jpg"), "validation/data/b.jpg": None},
        {"train": {"1": "train/data/a.jpg"}, "validation": {"1": "validation/data/b.jpg"}}),
    "Label Studio's COCO": (
        {"result.json": instances("images/0a1b-a.jpg", "images/2c3d-b.jpg", first_id=0), "images/0a1b-a.jpg": None,
         "images/2c3d-b.jpg": None},
        {"all": {"0": "images/0a1b-a.jpg", "1": "images/2c3d-b.jpg"}}),
    "Label Studio's COCO on Windows": (
        {"result.json": instances("images\\0a1b-a.jpg", "images\\1/2c3d-b.jpg"), "images/0a1b-a.jpg": None,
         "images/2c3d-b.jpg": None},
        {"all": {"1": "images/0a1b-a.jpg", "2": "images/2c3d-b.jpg"}}),
    "Label Studio's COCO with its own paths": (
        {"result.json": instances("../../label-studio/data/media/upload/4/0a1b-a.jpg", "/home/me/images/b.jpg",
                                  "..\\..\\media\\upload\\4\\c.jpg"),
         "images/0a1b-a.jpg": None, "images/b.jpg": None, "images/c.jpg": None},
        {"all": {"1": "images/0a1b-a.jpg", "2": "images/b.jpg", "3": "images/c.jpg"}}),
    "Label Studio's VOC": (
        {"Annotations/0a1b-a.xml": xml("0a1b-a.jpg"), "images/0a1b-a.jpg": None},
        {"all": {"0a1b-a": "images/0a1b-a.jpg"}}),
    "Roboflow's COCO": (
        {"README.dataset.txt": "cats", "README.roboflow.txt": "cats", **{
            f"{split}/{name}": content for split in ("train", "valid", "test") for name, content in
            {"_annotations.coco.json": instances(f"{A}.jpg", categories=ROBOFLOW, first_id=0), f"{A}.jpg": None}.items()}},
        {split: {"0": f"{split}/{A}.jpg"} for split in ("train", "valid", "test")}),
    "Roboflow's VOC": (
        {"README.dataset.txt": "cats", f"train/{A}.xml": xml(f"{A}.jpg"), f"train/{A}.jpg": None,
         f"valid/{B}.xml": xml(f"{B}.jpg"), f"valid/{B}.jpg": None},
        {"train": {A: f"train/{A}.jpg"}, "valid": {B: f"valid/{B}.jpg"}}),
    "labelImg": (
        {"a.xml": xml(folder="photos", path="C:\\Users\\me\\photos\\a.jpg"), "a.jpg": None, "IMG 2 (1).jpg": None,
         "IMG 2 (1).xml": xml("IMG 2 (1).jpg", path="/home/me/photos/IMG 2 (1).jpg"), "predefined_classes.txt": "cat\n"},
        {"all": {"IMG 2 (1)": "IMG 2 (1).jpg", "a": "a.jpg"}}),
    "labelImg with lists": (
        {"a.xml": xml(), "a.jpg": None, "b.xml": xml(), "b.jpg": None, "train.txt": "a.jpg\n", "test.txt": "./b.jpg\n"},
        {"train": {"a": "a.jpg"}, "test": {"b": "b.jpg"}, "all": {"a": "a.jpg", "b": "b.jpg"}}),
    "labelImg with a folder of annotations": (
        {"annotations/a.xml": xml(), "images/a.jpg": None}, {"all": {"a": "images/a.jpg"}}),
    "TensorFlow's tutorial": (
        {"images/train/a.xml": xml(), "images/train/a.jpg": None, "images/test/b.xml": xml(), "images/test/b.jpg": None},
        {"train": {"a": "images/train/a.jpg"}, "test": {"b": "images/test/b.jpg"}}),
    "VOC with a folder per split": (
        {"Annotations/train/a.xml": xml(), "JPEGImages/train/a.jpg": None, "Annotations/val/b.xml": xml(),
         "JPEGImages/val/b.jpg": None},
        {"train": {"a": "JPEGImages/train/a.jpg"}, "val": {"b": "JPEGImages/val/b.jpg"}}),
    "COCO's file beside folders of images": (
        {"train.json": instances("a.jpg"), "train/a.jpg": None, "val.json": instances("b.jpg"), "val/b.jpg": None},
        {"train": {"1": "train/a.jpg"}, "val": {"1": "val/b.jpg"}}),
    "COCO's file beside the images": (
        {"instances.json": instances("a.jpg", "b.jpg"), "a.jpg": None, "b.jpg": None}, {"all": {"1": "a.jpg", "2": "b.jpg"}}),
    "COCO's files by other names": (
        {"annotations/train.json": instances("a.jpg"), "images/a.jpg": None, "annotations/val.json": instances("b.jpg"),
         "images/b.jpg": None},
        {"train": {"1": "images/a.jpg"}, "val": {"1": "images/b.jpg"}}),
}
