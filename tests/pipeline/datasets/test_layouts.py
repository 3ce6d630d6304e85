"""Folders as tools write them are read without editing; what cannot be read is told by its name."""

from pathlib import Path

import pytest

from pipeline.datasets.formats import split_files
from pipeline.datasets.layouts import KINDS, VOC, Part, find_layouts
from pipeline.errors import DatasetError
from tests.pipeline.datasets.tool_folders import BOX, TOOLS, WIDTH, instances, read, write, xml

FIRST = ("CVAT's VOC 1.1", "Label Studio's COCO", "Roboflow's VOC", "labelImg")  # of each tool that the fast tier runs
NAMES = [name if name in FIRST else pytest.param(name, marks=pytest.mark.exhaustive) for name in TOOLS]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_tool_writes_is_read_as_it_is(tmp_path, name):
    files, splits = TOOLS[name]
    write(tmp_path, files)
    (layout,) = find_layouts(tmp_path)
    assert sorted(layout.splits) == sorted(splits)
    for split_name, images in splits.items():
        split = read(tmp_path, split_name)
        assert {image.id: image.path for image in split.images} == images
        assert split.classes == ("cat",)
        assert all(image.boxes.tolist() == [BOX] for image in split.images)


@pytest.mark.parametrize("name", ["Roboflow's VOC", "labelImg", "Label Studio's COCO"])
def test_the_rules_of_reading_hold_in_each_layout(tmp_path, name):
    files, splits = TOOLS[name]
    beyond = {"<xmax>10": f"<xmax>{WIDTH + 9}", "[2, 1, 8, 8]": f"[2, 1, {WIDTH + 9}, 8]"}
    for old, new in beyond.items():
        files = {name: text.replace(old, new) if isinstance(text, str) else text for name, text in files.items()}
    write(tmp_path, files)
    split = next(iter(splits))
    assert "not inside" in problem(tmp_path, split)
    clipped = read(tmp_path, split, on_bad_annotation="clip")
    assert [image.boxes.tolist() for image in clipped.images] == [[[2, 1, WIDTH, 9]]] * len(clipped.images)
    with pytest.raises(DatasetError, match="no object is of class 'dog'"):
        read(tmp_path, split, ("cat", "dog"), on_bad_annotation="clip", every_class=True)
    if layout_format(tmp_path) == VOC:
        moved = read(tmp_path, split, on_bad_annotation="clip", voc_first_pixel=0)
        assert moved.images[0].boxes.tolist() == [[3, 2, WIDTH, 10]]


def layout_format(root):
    (layout,) = find_layouts(root)
    return layout.format


def problem(root, split="train", **settings):
    with pytest.raises(DatasetError) as caught:
        read(root, split, **settings)
    (line,) = caught.value.problems
    return line


@pytest.mark.parametrize(("files", "parts"), [
    ({"images/a.jpg": None, "labels/a.txt": "0 1 1 1 1"},
     ["found images/ (1 .jpg), labels/ (1 .txt)", "YOLO's layout, but no file names its classes; add data.yaml, or classes.txt",
      "line; expected ImageSets/Main/SPLIT.txt, "]),
    ({"train/images/a.jpg": None, "train/labels/a.txt": "0 1 1 1 1"}, ["found train/ (1 .jpg, 1 .txt); this looks like YOLO"]),
    ({"obj_train_data/a.jpg": None, "obj_train_data/a.txt": "0 1 1 1 1"}, ["YOLO"]),
    ({"annotations.xml": "<annotations><version>1.1</version></annotations>", "images/a.jpg": None}, ["CVAT's own format"]),
    ({"a.json": '{"version": "5.0", "shapes": [{"label": "cat"}], "imageData": null}', "a.jpg": None}, ["LabelMe's format"]),
    ({"annotations/default.json": '{"info": {}, "categories": {}, "items": [{"annotations": [{}]}]}', "images/a.jpg": None},
     ["Datumaro's own format"]),
    ({"project-1.json": '[{"id": 1, "annotations": [{"result": []}]}]'}, ["Label Studio's own"]),
    ({"train/_annotations.csv": "a.jpg,1,1,2,2,cat", "train/a.jpg": None}, ["a table of boxes (CSV)"]),
    ({"cat.tfrecord": "x"}, ["TensorFlow's records"]),
    ({"data.zip": "PK"}, ["unpack the archive"]),
    ({"a.jpg": None, "b.jpg": None}, ["found 2 .jpg; there are images but no annotations"]),
    ({"VOC2007/ImageSets/Main/train.txt": "a", "VOC2007/Annotations/a.xml": xml()}, ["in its folder VOC2007: give ", "/VOC2007"]),
    ({"x/y/_annotations.coco.json": instances("a.jpg")}, ["there is one in its folder x: give "]),
    ({"notes.md": "x"},
     ["found 1 .md; expected ImageSets/Main/SPLIT.txt, ", "annotations/instances_SPLIT.json", "docs/own-data.md"]),
    ({}, ["found nothing: the folder is empty; expected "]),
])
def test_a_folder_in_no_layout(tmp_path, files, parts):
    root = tmp_path / "data"
    root.mkdir()
    line = problem(write(root, files))
    assert line.startswith(f"{root}: no data set in a layout that is read; found ")
    assert all(part in line for part in parts)
    assert split_files(root, "train") == ["ImageSets/Main/train.txt"]


def test_no_folder_and_a_file(tmp_path):
    assert "none: no such folder; expected a folder in VOC's, COCO's or YOLO's layout" in problem(tmp_path / "none")
    (tmp_path / "photographs").mkdir()
    assert "photograps: no such folder (did you mean photographs?); expected" in problem(tmp_path / "photograps")
    assert "a: no such folder; expected" in problem(tmp_path / "none" / "a")
    write(tmp_path, {"train.json": instances("a.jpg")})
    assert "train.json: is a file; give the folder of the data set" in problem(tmp_path / "train.json")


@pytest.mark.parametrize(("files", "parts"), [
    ({"ImageSets/Main/train.txt": "a", "annotations/instances_train.json": instances("a.jpg")},
     ["has ImageSets/Main/SPLIT.txt (VOC's format) and annotations/instances_SPLIT.json (COCO's format)"]),
    ({"train/_annotations.coco.json": instances("a.jpg"), "train/a.xml": xml(), "train/a.jpg": None},
     ["has SPLIT/*.xml (VOC's format) and SPLIT/_annotations.coco.json (COCO's format)"]),
    ({"result.json": instances("a.jpg"), "labels.json": instances("a.jpg")},
     ["split 'all' is in labels.json and in result.json"]),
    ({"a.xml": xml(), "a.jpg": None, "Annotations/a.xml": xml()},
     ["split 'all' is in the XML files of the folder itself and in the XML files of Annotations"]),
    ({"Annotations/a.xml": xml(), "images/a.jpg": None, "Annotations/sub/b.xml": xml(), "images/sub/b.jpg": None},
     ["split 'all' is in the XML files of Annotations and in the XML files of Annotations/sub"]),
])
def test_what_is_ambiguous_names_both(tmp_path, files, parts):
    line = problem(write(tmp_path, files))
    assert all(part in line for part in parts)
    assert line.endswith("; take one of them away")


@pytest.mark.parametrize("stray", [
    {"pom.xml": "<project/>"}, {"package.json": '{"name": "x", "images": 3}'},
    {"annotations/person_keypoints_val.json": instances("a.jpg")},
    {".git/a.xml": xml()}, {"train.txt": "x"}, {"val/Thumbs.db": "x"},
])
def test_strange_files_do_no_harm(tmp_path, stray):
    write(tmp_path, {"annotations/instances_val.json": instances("a.jpg"), "val/a.jpg": None, **stray})
    assert [image.path for image in read(tmp_path, "val").images] == ["val/a.jpg"]


def test_lists_for_a_class_are_splits_that_no_message_names(tmp_path):
    files = {"ImageSets/Main/train.txt": "a", "ImageSets/Main/small_train.txt": "a", "ImageSets/Main/cat_train.txt": "a 1"}
    write(tmp_path, {**files, "Annotations/a.xml": xml(), "JPEGImages/a.jpg": None})
    assert [image.id for image in read(tmp_path, "small_train").images] == ["a"]
    assert "a list for one class" in problem(tmp_path, "cat_train")
    assert "the splits of this data set are: train; give" in problem(tmp_path, "val")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_files_in_other_encodings(tmp_path, encoding):
    write(tmp_path, {"result.json": instances("a.jpg").encode(encoding), "a.jpg": None})
    assert len(read(tmp_path, "all").images) == 1


def test_a_missing_split(tmp_path):
    write(tmp_path, {"ImageSets/Main/trainval.txt": "a", "ImageSets/Main/cat_trainval.txt": "a 1", "ImageSets/Main/val.txt": "a"})
    line = problem(tmp_path)
    assert line == (f"{tmp_path}: has no split 'train' (ImageSets/Main/SPLIT.txt); the splits of this data set are: "
                    "trainval, val; give one of them")
    (tmp_path / "ImageSets/Main/val.txt").unlink()
    advice = "give one of them, or divide it into train and test with --test-fraction 0.2"
    assert problem(tmp_path).endswith(f"are: trainval; {advice}")


class TestParts:
    @pytest.mark.parametrize(("fraction", "count", "tests"), [
        (0.2, 10, 2), (0.2, 5, 1), (0.2, 2, 1), (0.01, 3, 1), (0.9, 4, 3), (0.2, 1, 0), (0.2, 0, 0), (0.5, 7, 4),
    ])
    def test_each_name_is_in_one_part(self, fraction, count, tests):
        names = [f"image {number}" for number in range(count)]
        test, train = (Part(fraction, is_test).choose(names) for is_test in (True, False))
        assert len(test) == tests
        assert sorted(test + train) == sorted(names)
        assert train == [name for name in names if name in train]
        assert set(Part(fraction, True).choose(reversed(names))) == set(test)

    @pytest.mark.parametrize("name", ["labelImg", "Label Studio's COCO", "CVAT's VOC 1.1"])
    def test_the_only_split_is_divided(self, tmp_path, name):
        files, splits = TOOLS[name]
        write(tmp_path, files)
        (images,) = splits.values()
        train, test = (read(tmp_path, split, test_fraction=0.5) for split in ("train", "test"))
        assert len(train.images) == len(test.images) == 1
        assert {image.id: image.path for image in (*train.images, *test.images)} == images
        assert all(image.boxes.tolist() == [BOX] for image in (*train.images, *test.images))
        assert set(split_files(tmp_path, "train", 0.5)) & {image.path for image in test.images} == set()

    def test_several_splits_are_not_divided(self, tmp_path):
        write(tmp_path, TOOLS["Roboflow's VOC"][0])
        assert "has the splits train, valid; leave out --test-fraction" in problem(tmp_path, test_fraction=0.2)


def test_images_without_an_annotation_are_left_out_and_told(tmp_path):
    write(tmp_path, {"a.xml": xml(), "a.jpg": None, "b.jpg": None, "c.jpg": None})
    split = read(tmp_path, "all")
    (note,) = split.notes
    assert (note.kind, note.count) == ("images without an annotation", 2)
    assert f"{tmp_path}/b.jpg: has no annotation in {tmp_path}" in str(note)
    assert split_files(tmp_path, "all") == ["a.xml", "a.jpg", "b.jpg", "c.jpg"]


def test_hidden_files_do_not_count(tmp_path):
    hidden = {"._a.xml": "\0\5\26\7", "._a.jpg": "\0", "__MACOSX/._a.xml": "\0", ".x/b.xml": xml()}
    write(tmp_path, {"a.xml": xml(), "a.jpg": None, **hidden})
    split = read(tmp_path, "all")
    assert ([image.id for image in split.images], split.notes) == (["a"], ())


def test_an_annotation_without_its_image_and_a_strange_one_are_told(tmp_path):
    write(tmp_path, {"a.xml": xml(), "b.xml": "<annotations/>", "b.jpg": None})
    with pytest.raises(DatasetError) as caught:
        read(tmp_path, "all")
    missing, strange = caught.value.problems
    assert "a.jpg: no such file (nor .jpeg, .png, .bmp, .webp, in either case); add it or remove its annotation" in missing
    assert "b.xml: its root element is <annotations>; expected a VOC file" in strange


def test_the_guide_has_each_layout():
    guide = (Path(__file__).parents[3] / "docs/own-data.md").read_text()
    for kind in KINDS:
        assert kind.mark in guide
