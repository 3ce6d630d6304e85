"""Ids, sizes and names in COCO's files as tools write them, and that pycocotools on the user's own file agrees with our table."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.datasets.coco_names import to_id
from pipeline.datasets.records import CocoNames, Split
from pipeline.detection.detections import Detections
from pipeline.detection.result_files import names_in_coco, write_coco
from pipeline.errors import DatasetError
from pipeline.evaluation.coco_ap import evaluate_coco
from tests.pipeline.datasets.tool_folders import BOX, HEIGHT, WIDTH, instances, read, write


class Set:
    """A data set of the split `val`: `document` is its instances file."""

    def __init__(self, root, *names):
        self.root, self.document = root, json.loads(instances(*(names or ("a.jpg", "b.jpg"))))
        write(root, {f"val/{image['file_name']}": None for image in self.document["images"]})

    @property
    def file(self):
        return self.root / "annotations/instances_val.json"

    def read(self, classes=None):
        write(self.root, {"annotations/instances_val.json": json.dumps(self.document)})
        return read(self.root, "val", classes)


@pytest.fixture
def data(tmp_path):
    return Set(tmp_path)


@pytest.mark.parametrize(("value", "id"), [
    (3, 3), (3.0, 3), ("3", 3), ("-3", -3), ("0", 0), ("003", "003"), ("a", "a"), ("IMG 1", "IMG 1"), ("3.0", "3.0"),
    ("9" * 30, "9" * 30), (2**70, 2**70), (3.5, None), (True, None), (None, None), ("", None), (" ", None), ([3], None),
    (float("nan"), None),
])
def test_what_an_id_means(value, id):
    assert to_id(value) == id
    assert type(to_id(value)) is type(id)


@pytest.mark.parametrize("write_id", [str, float, lambda id: f"image-{id}", lambda id: f"{id:012}"])
@pytest.mark.parametrize("table", ["images", "categories", "annotations"])
def test_ids_as_texts_and_as_floats(data, table, write_id):
    for entry in data.document[table]:
        entry["id"] = write_id(entry["id"])
    for annotation in data.document["annotations"]:
        name = {"images": "image_id", "categories": "category_id"}.get(table, "id")
        annotation[name] = write_id(annotation[name]) if name != "id" else annotation["id"]
    split = data.read()
    assert [image.boxes.tolist() for image in split.images] == [[BOX], [BOX]]
    assert split.coco == CocoNames(tuple(entry["id"] for entry in data.document["images"]), ("a.jpg", "b.jpg"),
                                   (data.document["categories"][0]["id"],))


def test_an_annotation_may_write_an_id_otherwise(data):
    data.document["annotations"][0]["image_id"] = "1"
    data.document["annotations"][1] |= {"image_id": 2.0, "category_id": "1"}
    split = data.read()
    assert [image.boxes.tolist() for image in split.images] == [[BOX], [BOX]]
    assert split.coco.image_ids == (1, 2)


@pytest.mark.parametrize("size", [
    {"width": None, "height": None}, {}, {"width": float(WIDTH), "height": float(HEIGHT)}, {"width": 0, "height": 0},
    {"width": None, "height": HEIGHT}, {"width": WIDTH}, {"width": -1, "height": -1},
])
def test_sizes_as_tools_write_them(data, size):
    image = data.document["images"][0]
    data.document["images"][0] = {"id": image["id"], "file_name": image["file_name"], **size}
    assert [(image.width, image.height) for image in data.read().images] == [(WIDTH, HEIGHT)] * 2


@pytest.mark.parametrize(("size", "message"), [
    ({"width": WIDTH + 0.5}, "is 20.5 x 12, the image is 20 x 12"),
    ({"width": "20"}, "has width and height '20' x 12; expected pixels"),
    ({"height": True}, "has width and height 20 x True"),
    ({"width": float("nan")}, "has width and height nan x 12"),
])
def test_sizes_that_are_wrong(data, size, message):
    data.document["images"][0] |= size
    with pytest.raises(DatasetError) as caught:
        data.read()
    assert message in caught.value.problems[0]


@pytest.mark.parametrize(("name", "on_disk"), [
    ("./a.jpg", "val/a.jpg"), ("sub\\a.jpg", "val/sub/a.jpg"), ("my%20cat.jpg", "val/my cat.jpg"),
    ("images/1/a.jpg", "images/a.jpg"),
    ("/home/me/a.jpg", "val/a.jpg"), ("C:\\Users\\me\\a.jpg", "val/a.jpg"), ("https://host.org/x/a.jpg", "val/a.jpg"),
    ("../photos/a.jpg", "val/a.jpg"),
    ("gro\u0308ssen.jpg", "val/gr\u00f6ssen.jpg"), ("gr\u00f6ssen.jpg", "val/gro\u0308ssen.jpg"),
])
def test_file_names_as_tools_write_them(tmp_path, name, on_disk):
    data = Set(tmp_path, "b.jpg")
    data.document["images"][0]["file_name"] = name
    write(tmp_path, {on_disk: None})
    split = data.read()
    assert [image.path for image in split.images] == [on_disk]
    assert split.coco.file_names == (name,)
    moved = "me" in name or "photos" in name or "host" in name or "/1/" in name
    assert [note.kind for note in split.notes] == (["files in another folder"] if moved else [])


@pytest.mark.parametrize("name", ["../b.jpg", "/etc/passwd", "sub/../../b.jpg", "..", "", None, 7, "C:\\b.jpg"])
def test_file_names_that_lead_out_are_refused(data, name):
    data.document["images"][0]["file_name"], second = name, data.document["images"][1]
    assert second["file_name"] == "b.jpg"
    data.document["images"].reverse()
    with pytest.raises(DatasetError) as caught:
        data.read()
    assert any("image 1 has the file_name" in line and "stays in the folder" in line for line in caught.value.problems)


def test_two_names_of_one_file(data):
    data.document["images"][1]["file_name"] = "./a.jpg"
    with pytest.raises(DatasetError, match="1 problem") as caught:
        data.read()
    assert "image 2 is ./a.jpg, as image 1; remove one of them" in caught.value.problems[0]


class TestCategories:
    def test_two_of_one_name_are_one_class_with_the_id_of_more_objects(self, data):
        data.document["categories"] = [{"id": 0, "name": "cat"}, {"id": 5, "name": " cat"}, {"id": 9, "name": "dog"}]
        for annotation, id in zip(data.document["annotations"], (5, 5), strict=True):
            annotation["category_id"] = id
        data.document["annotations"].append({**data.document["annotations"][0], "id": 3, "category_id": 0})
        split = data.read()
        assert (split.classes, split.coco.category_ids) == (("cat",), (5,))
        assert [image.labels.tolist() for image in split.images] == [[0, 0], [0]]
        (note,) = split.notes
        assert str(note) == (f"{data.file}: category 5 is named  cat, as category 0; they are one class; "
                             "the result file has the id that has more objects")

    def test_regions_to_ignore_are_no_objects(self, data):
        data.document["categories"] = [{"id": 0, "name": "cat"}, {"id": 5, "name": "cat"}]
        crowds = [{**data.document["annotations"][0], "id": id, "category_id": 0, **mark}
                  for id, mark in ((3, {"iscrowd": 1}), (4, {"ignore": 1}), (5, {"ignore": True}))]
        data.document["annotations"] = [{**annotation, "category_id": 5} for annotation in data.document["annotations"]] + crowds
        assert data.read().coco.category_ids == (5,)

    def test_the_first_of_equals_and_classes_that_the_file_does_not_have(self, data):
        data.document["categories"] = [{"id": 7, "name": "cat"}, {"id": 3, "name": "cat"}]
        for annotation, id in zip(data.document["annotations"], (3, 7), strict=True):
            annotation["category_id"] = id
        assert data.read(("dog", "cat", "bird")).coco.category_ids == (8, 7, 9)


def test_an_annotation_with_the_id_0_is_read_and_told(data):
    data.document["annotations"][0]["id"] = 0
    split = data.read()
    assert [image.boxes.tolist() for image in split.images] == [[BOX], [BOX]]
    explanation = "pycocotools counts this object as not found, whatever is found; count from 1 to compare its AP with ours"
    assert [str(note) for note in split.notes] == [f"{data.file}: annotation 0 has the id 0; {explanation}"]


def test_a_crowd_with_the_id_0_is_as_any_crowd(data):
    """A crowd need not be found, so pycocotools and we give the same figures."""
    data.document["annotations"][0] |= {"id": 0, "iscrowd": 1}
    assert data.read().notes == ()


@pytest.mark.parametrize(("image_id", "shown"), [(77, "77"), ("77", "77"), (77.0, "77"), ("img-77", "'img-77'")])
def test_an_annotation_of_an_image_that_the_file_does_not_list(data, image_id, shown):
    data.document["annotations"].append({**data.document["annotations"][0], "id": 3, "image_id": image_id})
    (note,) = data.read().notes
    assert f"annotation 3 has the image_id {shown}, and the file lists no image of this id; left out" in str(note)


@pytest.mark.parametrize("mark", ["iscrowd", "ignore", "difficult"])
def test_ids_may_be_texts_and_marks_may_not(data, mark):
    data.document["annotations"][0] |= {"image_id": "1", mark: "1"}
    with pytest.raises(DatasetError, match=f"has {mark} '1'; expected 0 or 1"):
        data.read()


def test_the_other_part_of_a_divided_split_is_no_fault(tmp_path):
    """Its images are not listed in this part, but in the file."""
    data = Set(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    data.document["annotations"].append({**data.document["annotations"][0], "id": 9, "image_id": 99})
    write(tmp_path, {"annotations/instances_val.json": json.dumps(data.document)})
    parts = [read(tmp_path, split, test_fraction=0.5) for split in ("train", "test")]
    assert sorted(name for part in parts for name in part.coco.file_names) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert [[(note.kind, note.count) for note in part.notes] for part in parts] == [
        [("annotations of images that the file does not list", 1)]] * 2


def test_the_index_keeps_the_names(data):
    split = data.read()
    assert Split.from_json(json.loads(json.dumps(split.to_json()))).coco == split.coco
    assert "coco" not in Split("x", (), ()).to_json()
    assert split.select([0]).coco is None


@pytest.mark.parametrize(("case", "split", "paths", "categories"), [
    ("01-coco-result-category-ids/data/r1-coco", "val2017", ["val2017/000011.jpg", "val2017/000012.jpg"], (17, 3)),
    ("03-coco-images-split-folder/data/c02-images-split", "train2017", ["images/train2017/000001.jpg"], (1,)),
])
def test_the_cases_from_the_field(shared, case, split, paths, categories):
    if not (shared / "cases" / case).is_dir():
        pytest.skip(f"case absent: cases/{case}")
    images = read(shared / "cases" / case, split)
    assert [image.path for image in images.images] == paths
    assert images.coco.category_ids == categories


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(1, 8))])
def test_pycocotools_on_the_users_file_gives_the_figures_of_our_table(tmp_path, seed):
    """Categories that begin anywhere, crowds, a category without objects, images without objects, and detections near and far."""
    generator = np.random.default_rng(seed)
    data = Set(tmp_path, *(f"{number}.jpg" for number in range(12)))
    ids, categories = generator.permutation(1000)[:12].tolist(), [90, 3, 17, 44]
    for image, id in zip(data.document["images"], ids, strict=True):
        image["id"] = id
    data.document["categories"] = [{"id": id, "name": f"class {id}"} for id in categories]
    data.document["annotations"] = []
    for number in range(40):
        x, y = generator.uniform(0, (12, 6)).tolist()
        bbox = [x, y, *generator.uniform(2, 6, 2).tolist()]
        data.document["annotations"].append({
            "id": number + 1, "image_id": ids[number % 10], "category_id": categories[number % 3], "bbox": bbox,
            "area": bbox[2] * bbox[3], "iscrowd": int(number % 9 == 8)})
    split = data.read()
    rows = [(image, label, box + generator.normal(0, scale, 4)) for image, record in enumerate(split.images)
            for box, label in zip(record.boxes, record.labels, strict=True) for scale in (0.3, 1)]
    boxes = np.array([row[2] for row in rows])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 0.5)
    names = [image.id for image in split.images]
    images, labels, scores = [row[0] for row in rows], [row[1] for row in rows], generator.normal(size=len(rows))
    detections = Detections(names, split.classes, images, labels, scores, boxes)
    write_coco(tmp_path / "coco.json", detections, names_in_coco(split))
    ours = evaluate_coco(detections, split.images, split.classes).metrics
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data.file))
        theirs = COCOeval(truth, truth.loadRes(str(tmp_path / "coco.json")), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    np.testing.assert_allclose(theirs.stats[:3], [ours["ap"], ours["ap_50"], ours["ap_75"]], atol=1e-6)
    assert 0.1 < ours["ap_50"] < 1
