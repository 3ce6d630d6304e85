"""Annotations for labelling tools: by hand, read back by our own readers, and against what Label Studio's docs require."""

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.formats import read_split, split_files
from pipeline.detection.annotation_files import prepare, studio_interface, studio_tasks, voc_xml, write_annotations, yolo_text
from pipeline.detection.detections import ImageDetections
from pipeline.errors import PipelineError

CLASSES = ("cat", "big <dog> & co")
ALL = np.float32([-np.inf, -np.inf])
FORMATS = ("voc", "coco", "yolo", "label-studio")


def detections_of(boxes, scores=None, labels=None):
    count = len(boxes)
    scores = np.float32(scores if scores is not None else np.linspace(0.9, 0.1, count))
    return ImageDetections(
        np.float32(boxes).reshape(-1, 4), scores, np.array(labels if labels is not None else np.zeros(count), int), CLASSES
    )


def annotated(name="a b/one.jpg", size=(100, 50), **columns):
    return prepare(name, *size, detections_of(**columns), ALL)[0]


ONE = annotated(boxes=[(10, 5, 30, 25), (0.4, 0, 99.7, 50)], labels=[0, 1])


class TestPrepare:
    def test_classes_have_scores_of_their_own_and_equal_scores_count(self):
        detections = detections_of([(0, 0, 9, 9)] * 4, scores=[0.7, 0.6, 0.5, 0.4], labels=[0, 1, 1, 0])
        image, left_out = prepare("x.jpg", 10, 10, detections, np.float32([0.7, 0.5]))
        assert (image.detections.scores.tolist(), left_out) == (np.float32([0.7, 0.6, 0.5]).tolist(), 0)

    def test_boxes_are_cut_and_those_outside_are_counted(self):
        image, left_out = prepare("x.jpg", 10, 8, detections_of([(-5, -5, 20, 20), (10, 0, 15, 5), (3, -9, 5, 0)]), ALL)
        assert (image.detections.boxes.tolist(), left_out) == ([[0, 0, 10, 8]], 2)


class TestVoc:
    def test_corners_count_from_1_and_belong_to_the_box(self):
        tree = ElementTree.fromstring(voc_xml(ONE))
        assert (tree.findtext("folder"), tree.findtext("filename")) == ("a b", "one.jpg")
        assert [tree.findtext(f"size/{side}") for side in ("width", "height", "depth")] == ["100", "50", "3"]
        corners = [[int(entry.findtext(f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")]
                   for entry in tree.iter("object")]
        assert corners == [[11, 6, 30, 25], [1, 1, 100, 50]]
        assert [entry.findtext("name") for entry in tree.iter("object")] == list(CLASSES)

    def test_the_smallest_box_is_a_pixel_in_the_photograph(self):
        for box in (99.9, 49.9, 100, 50), (0, 0, 0.1, 0.1), (5.4, 5.4, 5.6, 5.6):
            tree = ElementTree.fromstring(voc_xml(annotated(boxes=[box])))
            x1, y1, x2, y2 = (int(corner.text) for corner in tree.find("object/bndbox"))
            assert 1 <= x1 <= x2 <= 100
            assert 1 <= y1 <= y2 <= 50

    def test_names_that_xml_cannot_hold(self):
        assert ElementTree.fromstring(voc_xml(annotated(name="a\x1b&.jpg", boxes=[]))).findtext("filename") == "a\ufffd&.jpg"


def test_yolo_by_hand():
    """Centre (20, 15) and size 20 x 20 of 100 x 50."""
    assert yolo_text(annotated(boxes=[(10, 5, 30, 25)], labels=[1])) == "1 0.200000000 0.300000000 0.200000000 0.400000000\n"
    assert yolo_text(annotated(boxes=[])) == ""


def check_studio_task(task):
    """What Label Studio's pages on pre-annotations and on the task format ask of a task with predicted rectangles."""
    assert set(task) <= {"data", "predictions"}
    assert isinstance(task["data"]["image"], str)
    for prediction in task["predictions"]:
        assert isinstance(prediction["model_version"], str)
        assert isinstance(prediction["score"], float)
        ids = [result["id"] for result in prediction["result"]]
        assert len(set(ids)) == len(ids)
        for result in prediction["result"]:
            assert isinstance(result["id"], str)
            assert result["type"] == "rectanglelabels"
            assert (result["from_name"], result["to_name"]) == ("label", "image")
            assert all(type(result[side]) is int and result[side] > 0 for side in ("original_width", "original_height"))
            assert result["image_rotation"] == 0
            value = result["value"]
            assert set(value) == {"x", "y", "width", "height", "rotation", "rectanglelabels"}
            assert all(math.isfinite(value[side]) and 0 <= value[side] <= 100 for side in ("x", "y", "width", "height"))
            assert value["x"] + value["width"] <= 100 + 1e-9
            assert value["y"] + value["height"] <= 100 + 1e-9
            (label,) = value["rectanglelabels"]
            assert label in CLASSES


class TestLabelStudio:
    def test_by_hand(self):
        (task,) = studio_tasks([annotated(boxes=[(10, 5, 30, 25)], scores=[0.25])], "/data/local-files/?d=photos/")
        check_studio_task(task)
        assert task["data"] == {"image": "/data/local-files/?d=photos/a%20b/one.jpg"}
        (prediction,) = task["predictions"]
        (result,) = prediction["result"]
        assert (result["original_width"], result["original_height"], result["score"]) == (100, 50, 0.25)
        assert result["value"] == {"x": 10, "y": 10, "width": 20, "height": 40, "rotation": 0, "rectanglelabels": ["cat"]}

    def test_no_detection_is_a_task_all_the_same(self):
        (task,) = studio_tasks([annotated(boxes=[])], "")
        check_studio_task(task)
        assert task["predictions"][0]["result"] == []

    def test_the_interface_has_the_names_and_labels_of_the_results(self):
        view = ElementTree.fromstring(studio_interface(CLASSES))
        assert view.find("Image").attrib == {"name": "image", "value": "$image"}
        assert view.find("RectangleLabels").attrib == {"name": "label", "toName": "image"}
        assert [label.get("value") for label in view.iter("Label")] == list(CLASSES)


class TestRoundTrip:
    @pytest.fixture
    def images(self, tmp_path):
        """Five photographs with detections of any place and size, and one without."""
        generator, images = np.random.default_rng(4), []
        for number, count in enumerate((3, 1, 5, 2, 4, 0)):
            width, height = generator.integers(30, 90, 2).tolist()
            corner = generator.uniform(-5, 25, (count, 2))
            boxes = np.concatenate([corner, corner + generator.uniform(6, 80, (count, 2))], axis=1)
            detections = detections_of(boxes, labels=generator.integers(0, 2, count))
            image, left_out = prepare(f"p{number}.png", width, height, detections, ALL)
            assert not left_out
            images.append(image)
            (tmp_path / "photos").mkdir(exist_ok=True)
            Image.new("RGB", (width, height), (number, 0, 0)).save(tmp_path / "photos" / image.name)
        write_annotations(tmp_path, FORMATS, images, CLASSES)
        return images

    @staticmethod
    def read(root, split):
        import hashlib

        digests = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in split_files(root, split)}
        return read_split(root, split, None, digests)

    def check(self, split, images, tolerance):
        classes = np.array(split.classes)
        assert [Path(record.path).name for record in split.images] == [image.name for image in images]
        for record, image in zip(split.images, images, strict=True):
            assert (record.width, record.height) == image.size
            assert classes[record.labels].tolist() == image.detections.names
            np.testing.assert_allclose(record.boxes, image.detections.boxes, atol=tolerance)

    def test_voc_beside_the_photographs(self, images, tmp_path):
        for file in (tmp_path / "voc").iterdir():
            file.rename(tmp_path / "photos" / file.name)
        self.check(self.read(tmp_path / "photos", "all"), images, 0.5 + 1e-5)

    def test_coco(self, images, tmp_path):
        (tmp_path / "photos").rename(tmp_path / "coco" / "images")
        self.check(self.read(tmp_path / "coco", "default"), images, 1e-4)

    def test_yolo_and_label_studio_say_the_same(self, images, tmp_path):
        tasks = json.loads((tmp_path / "label-studio" / "tasks.json").read_text())
        for image, task in zip(images, tasks, strict=True):
            check_studio_task(task)
            rows = [[float(part) for part in line.split()] for line in
                    (tmp_path / "yolo" / "labels" / f"{image.stem}.txt").read_text().splitlines()]
            sides = np.array([*image.size, *image.size])
            centres = np.array(rows).reshape(-1, 5)[:, 1:] * sides
            boxes = np.hstack([centres[:, :2] - centres[:, 2:] / 2, centres[:, :2] + centres[:, 2:] / 2])
            np.testing.assert_allclose(boxes, image.detections.boxes, atol=1e-5)
            assert [int(row[0]) for row in rows] == image.detections.labels.tolist()
            values = [result["value"] for result in task["predictions"][0]["result"]]
            percents = np.array([[value[side] for side in ("x", "y", "width", "height")] for value in values]).reshape(-1, 4)
            percents[:, 2:] += percents[:, :2]
            np.testing.assert_allclose(percents * sides / 100, image.detections.boxes, atol=1e-5)

    def test_yolo_names_its_classes(self, images, tmp_path):
        text = (tmp_path / "yolo" / "data.yaml").read_text()
        assert text.splitlines()[-2:] == ['  0: "cat"', '  1: "big <dog> & co"']


def test_only_the_formats_that_are_asked_for(tmp_path):
    write_annotations(tmp_path, ("coco",), [ONE], CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]


@pytest.mark.parametrize("name", ["voc", "yolo"])
def test_photographs_that_would_share_a_file(tmp_path, name):
    images = [annotated(name=f"a.{suffix}", boxes=[]) for suffix in ("jpg", "png")]
    with pytest.raises(PipelineError, match=r"^a.jpg, a.png: would share a file of annotations \(voc and yolo\); rename one"):
        write_annotations(tmp_path, (name,), images, CLASSES)
    assert not list(tmp_path.iterdir())
    write_annotations(tmp_path, ("coco", "label-studio"), images, CLASSES)
