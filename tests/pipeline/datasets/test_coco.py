"""COCO's instances files: what becomes of them, and what is wrong with them; which layout a folder has."""

import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.formats import read_split, split_files
from pipeline.datasets.records import NO_CLASS
from pipeline.errors import DatasetError

WIDTH, HEIGHT = 20, 12
CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 17, "name": "cat"}, {"id": 1, "name": "person"}]
BOX = [2, 1, 8, 8]


def image_bytes(format="JPEG"):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(buffer, format)
    return buffer.getvalue()


class Folder:
    """A folder in COCO's layout in the making: `write` makes the instances file of the split `val`, `read` reads it."""

    def __init__(self, root):
        self.root, self.file = root, root / "annotations/instances_val.json"
        self.images, self.categories, self.annotations = [], [*CATEGORIES], []
        self.file.parent.mkdir(parents=True)

    def image(self, id, name, folder="val", content=None, **values):
        self.images.append({"id": id, "file_name": name, "width": WIDTH, "height": HEIGHT, **values})
        path = self.root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes() if content is None else content)

    def object(self, image_id, bbox=BOX, category_id=17, **values):
        id = len(self.annotations) + 1
        self.annotations.append({"id": id, "image_id": image_id, "category_id": category_id, "bbox": bbox, **values})

    def write(self, text=None):
        document = {"info": {}, "images": self.images, "categories": self.categories, "annotations": self.annotations}
        self.file.write_text(json.dumps(document) if text is None else text)

    def read(self, classes=None, split="val", **rules):
        files = [name for name in split_files(self.root, split) if (self.root / name).is_file()]
        digests = {name: hashlib.sha256((self.root / name).read_bytes()).hexdigest() for name in files}
        return read_split(self.root, split, classes, digests, **rules)

    def problems(self, *args, **kwargs):
        with pytest.raises(DatasetError) as caught:
            self.read(*args, **kwargs)
        return caught.value.problems


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "coco")


@pytest.fixture
def coco(folder):
    """A folder with one image of one good object."""
    folder.image(42, "a.jpg")
    folder.object(42)
    return folder


def test_records(folder):
    folder.image(7, "b.jpg")
    folder.image(139, "empty.png", content=image_bytes("PNG"))
    folder.image(42, "a.jpg")
    folder.object(42, [0, 0, WIDTH, HEIGHT], 1, iscrowd=1, segmentation={"counts": [1, 2], "size": [3, 4]})
    folder.object(7, [0.5, 1.25, 3.5, 2], 90, iscrowd=0, segmentation=[[1, 2, 3]], area=5)
    folder.object(42, [18.51, 0, 1.5, HEIGHT + 0.01])
    folder.write()
    split = folder.read()
    assert (split.name, split.classes, split.dropped) == ("val", ("cat", "toothbrush"), ())
    assert [(image.id, image.path) for image in split.images] == [
        ("7", "val/b.jpg"), ("139", "val/empty.png"), ("42", "val/a.jpg")]
    assert [image.labels.tolist() for image in split.images] == [[1], [], [NO_CLASS, 0]]
    assert [image.ignored.tolist() for image in split.images] == [[False], [], [True, False]]
    assert not any(image.difficult.any() for image in split.images)
    np.testing.assert_array_equal(split.images[0].boxes, [[0.5, 1.25, 4, 3.25]])
    assert split.images[1].boxes.shape == (0, 4)
    # A hundredth of a pixel beyond the edge is rounding and cut off.
    np.testing.assert_array_equal(split.images[2].boxes, np.float32([[0, 0, WIDTH, HEIGHT], [18.51, 0, WIDTH, HEIGHT]]))
    assert split.images[2].digest == hashlib.sha256(image_bytes()).hexdigest()
    assert (split.images[2].width, split.images[2].height) == (WIDTH, HEIGHT)
    assert folder.read(["toothbrush", "person", "cat"]).images[2].labels.tolist() == [1, 2]


@pytest.mark.parametrize(("place", "path"), [
    (["val"], "val/a.jpg"), (["images"], "images/a.jpg"), ([""], "a.jpg"), (["", "images"], "images/a.jpg"),
    (["images", "val"], "val/a.jpg"),
])
def test_where_images_lie(folder, place, path):
    for number, name in enumerate(place):
        folder.image(42 + number, "a.jpg", folder=name)
    del folder.images[1:]
    folder.object(42)
    folder.write()
    assert folder.read().images[0].path == path
    assert split_files(folder.root, "val") == ["annotations/instances_val.json", path]


def test_a_file_name_may_have_folders(folder):
    folder.image(1, "val2017/a.jpg", folder="images")
    folder.object(1)
    folder.write()
    assert folder.read().images[0].path == "images/val2017/a.jpg"


@pytest.mark.parametrize(("bbox", "message"), [
    ([-1.6, 1, 8, 8], f"which is not inside the image of {WIDTH} x {HEIGHT}"),
    ([14, 1, 8, 8], "not inside"),
    ([2, 5, 8, 8.1], "not inside"),
    ([2, 1, 0, 8], "which is empty or reversed"),
    ([2, 1, 8, -1], "empty or reversed"),
    ([20.1, 1, 0.2, 1], "no part inside"),
    ([2, 1, None, 8], "[2, 1, None, 8], where a coordinate is not a number"),
    ([2, 1, float("nan"), 8], "not a number"),
    ([2, 1, 10**400, 8], "not a number"),
])
def test_bad_boxes_are_errors_or_dropped_and_listed(coco, bbox, message):
    coco.object(42, bbox)
    coco.object(42)
    coco.write()
    (problem,) = coco.problems()
    assert problem.startswith(f"{coco.file}: annotation 2 (cat, image 42) has the bbox [")
    assert message in problem
    split = coco.read(on_bad_annotation="drop")
    assert list(map(str, split.dropped)) == [problem]
    assert split.images[0].boxes.tolist() == [[2, 1, 10, 9]] * 2


def test_a_class_that_is_not_wanted(coco):
    coco.object(42, category_id=90)
    coco.write()
    (problem,) = coco.problems(["cat"])
    assert "annotation 2 (toothbrush, image 42) is of no known class (cat); correct it, or leave" in problem
    assert list(map(str, coco.read(["cat"], on_bad_annotation="drop").dropped)) == [problem]


@pytest.mark.parametrize(("table", "values", "message"), [
    ("images", {"id": 42, "file_name": "b.jpg"}, "images: entry 2 has the id 42, as an entry before it"),
    ("images", {"id": 43.5, "file_name": "b.jpg"}, "images: entry 2 has the id 43.5; expected an object with a whole number"),
    ("images", ["a.jpg"], "images: entry 2 has the id None"),
    ("images", {"id": 43, "file_name": "a.jpg"}, "image 43 is a.jpg, as image 42"),
    ("images", {"id": 43, "file_name": "../a.jpg"}, "image 43 has the file_name '../a.jpg'; expected a file's name that"),
    ("images", {"id": 43, "file_name": "/etc/passwd"}, "stays in the folder"),
    ("images", {"id": 43}, "image 43 has the file_name None"),
    ("categories", {"id": 17, "name": "dog"}, "categories: entry 4 has the id 17, as an entry before it"),
    ("categories", {"id": 18, "name": " "}, "category 18 has the name ' '"),
    ("annotations", {"id": 1, "image_id": 42, "category_id": 17, "bbox": BOX}, "annotations: entry 2 has the id 1, as an entry"),
    ("annotations", {"id": 2, "image_id": 42, "category_id": 2, "bbox": BOX}, "annotation 2 has the category_id 2, and no categ"),
    ("annotations", {"id": 2, "image_id": [4], "category_id": 17, "bbox": BOX}, "annotation 2 has the image_id [4]"),
    ("annotations", {"id": 2, "image_id": 42, "category_id": 17, "bbox": BOX, "iscrowd": 2}, "(cat, image 42) has iscrowd 2"),
    ("annotations", {"id": 2, "image_id": 42, "category_id": 17}, "(cat, image 42) has the bbox None; expected a list of"),
    ("annotations", {"id": 2, "image_id": 42, "category_id": 17, "bbox": [1, 2, 3]}, "(cat, image 42) has the bbox [1, 2, 3]"),
])
def test_what_is_never_dropped(coco, table, values, message):
    getattr(coco, table).append(values)
    coco.write()
    (problem,) = coco.problems(on_bad_annotation="drop")
    assert problem.startswith(f"{coco.file}: ")
    assert message in problem


@pytest.mark.parametrize(("values", "message"), [
    ({"width": HEIGHT, "height": WIDTH}, f"image 43 (b.jpg) is {HEIGHT} x {WIDTH}, the image is {WIDTH} x {HEIGHT}: turned"),
    ({"width": "20"}, "image 43 (b.jpg) has width and height '20' x 12; expected pixels"),
])
def test_size_that_is_not_the_files(coco, values, message):
    coco.image(43, "b.jpg", **values)
    coco.write()
    (problem,) = coco.problems(on_bad_annotation="drop")
    assert message in problem


def test_size_may_be_unknown(coco):
    coco.images[0].update(width=0, height=0)
    coco.write()
    assert coco.read().images[0].width == WIDTH


@pytest.mark.parametrize(("text", "message"), [
    ("{", "not readable as JSON"),
    ("[" * 100000, "not readable as JSON"),
    ("[]", "has no list of images, categories, annotations"),
    ('{"images": [], "annotations": {}}', "has no list of categories, annotations; expected COCO's lists"),
    ('{"images": [], "categories": [], "annotations": []}', "none of its 0 image(s) has an object"),
])
def test_files_that_are_none(coco, text, message):
    coco.write(text)
    (problem,) = coco.problems(on_bad_annotation="drop")
    assert problem.startswith(f"{coco.file}: ")
    assert message in problem
    assert split_files(coco.root, "val") == ["annotations/instances_val.json"]


def test_all_problems_are_reported_together(coco):
    coco.image(1, "broken.jpg", content=b"")
    coco.image(2, "gone.jpg")
    (coco.root / "val/gone.jpg").unlink()
    coco.object(1, [-5, 0, 2, 2])
    coco.images.append({"id": 4, "file_name": ""})
    coco.object(None)
    coco.object(4)
    coco.write()
    parts = ["val/broken.jpg: not a readable image", "val/gone.jpg: no such file (nor in ", "image 4 has the file_name ''",
             "annotation 2 (cat, image 1)", "annotation 3 has the image_id None"]
    problems = coco.problems()
    assert len(problems) == len(parts)
    assert all(part in problem for part, problem in zip(parts, problems, strict=True))


def test_missing_split_names_those_that_exist(coco):
    coco.write()
    (coco.root / "annotations/instances_x").mkdir()
    (coco.root / "annotations/instances_x/val.json").write_bytes(coco.file.read_bytes())
    for split in ("train", "x/val"):
        (problem,) = coco.problems(split=split)
        assert f"has no split '{split}' (annotations/instances_SPLIT.json); the splits of this data set are: val; give" in problem


@pytest.mark.parametrize("name", ["annotations/instances_val.json", "val/a.jpg"])
def test_changed_files_are_noticed(coco, name):
    coco.write()
    digests = {file: hashlib.sha256((coco.root / file).read_bytes()).hexdigest() for file in split_files(coco.root, "val")}
    with pytest.raises(DatasetError, match=f"{name}: changed while it was being indexed; run again"):
        read_split(coco.root, "val", None, {**digests, name: "0" * 64})


def test_a_folder_in_both_layouts_is_refused(coco):
    coco.write()
    (coco.root / "ImageSets" / "Main").mkdir(parents=True)
    (problem,) = coco.problems()
    marks = "ImageSets/Main/SPLIT.txt (VOC's format) and annotations/instances_SPLIT.json (COCO's format)"
    assert f"has {marks}; take one of them away" in problem


@pytest.mark.parametrize(("values", "message"), [
    ({"id": None}, "annotations: entry 2 has the id None; expected an object with a whole number"),
    ({"id": 1}, "annotations: entry 2 has the id 1, as an entry before it; make them differ"),
    ({"image_id": None}, "annotation 2 has the image_id None, and no image has this id; correct it"),
    ({"category_id": True}, "annotation 2 has the category_id True, and no category has this id; correct it"),
    ({"iscrowd": 2}, "(cat, image 1) has iscrowd 2; expected 0 or 1"), ({"iscrowd": 0.5}, "has iscrowd 0.5; expected"),
    ({"bbox": [2, 1.5, 8.0, 80]}, "annotation 2 (cat, image 1) has the bbox [2, 1.5, 8, 80], which is not inside the image"),
    ({"bbox": [2, 1, "8", None]}, "has the bbox [2, 1, '8', None], where a coordinate is not a number"),
    ({"bbox": [float("nan")] * 4}, "has the bbox [nan, nan, nan, nan], where a coordinate is not a number"),
    ({"bbox": [10**400, 1, 2, 2]}, ", where a coordinate is not a number"),
    ({"bbox": [1, 2, 3]}, "has the bbox [1, 2, 3]; expected"),
])
def test_an_annotation_among_usual_ones_is_quoted_as_it_is(folder, values, message):
    folder.image(1, "a.jpg")
    for _ in range(3):
        folder.object(1)
    folder.annotations[1].update(values)
    for name in [name for name, value in values.items() if value is None]:
        del folder.annotations[1][name]
    folder.write()
    (problem,) = folder.problems()
    assert message in problem


def test_objects_come_image_by_image_whatever_their_order(folder):
    for id in (5, 3, 9):
        folder.image(id, f"{id}.jpg")
    boxes = {5: [[0, 0, 1, 1], [0, 0, 2, 2.5], [0, 0, 3, 3]], 3: [], 9: [[0, 0, 4, 4], [0, 0, 5, 5]]}
    for image, number, crowd in [(9, 0, 0), (5, 0, 1), (5, 1, None), (9, 1, 0), (5, 2, 0)]:
        folder.object(image, boxes[image][number], **({} if crowd is None else {"iscrowd": crowd}))
    folder.write()
    images = folder.read().images
    assert [image.id for image in images] == ["5", "3", "9"]
    assert [image.boxes.tolist() for image in images] == list(boxes.values())
    assert [image.ignored.tolist() for image in images] == [[True, False, False], [], [False, False]]


def test_what_looks_like_an_annotation_is_none_elsewhere(folder):
    folder.image(1, "a.jpg")
    folder.object(1, [0, 0, 3, 3])
    stray = {"id": 8, "image_id": 1, "category_id": 17, "bbox": [0, 0, 9, 9]}
    folder.annotations[0]["other"] = stray
    folder.images[0]["other"] = [stray]
    folder.write()
    assert folder.read().images[0].boxes.tolist() == [[0, 0, 3, 3]]
    folder.images.append(stray)
    folder.write()
    assert "images: entry 2 has the id None; expected an object with a whole number" in folder.problems()[0]
