"""YOLO folders: layouts as tools write them, boxes worked by hand, and a fault of each kind."""

import numpy as np
import pytest

from pipeline.datasets.formats import split_files
from pipeline.datasets.layouts import YOLO, find_layouts
from pipeline.datasets.yolo_places import ids_of, label_names
from pipeline.errors import DatasetError
from tests.pipeline.datasets.layouts import counts_of
from tests.pipeline.datasets.tool_folders import BOX, instances, read, write, xml
from tests.pipeline.datasets.yolo_folders import CAT, YOLO_TOOLS

DATA = "train: images\nnames: [cat, dog]\n"


def folder(root, *lines, data=DATA, **files):
    """One image, `images/a.jpg`, with these lines as its labels."""
    return write(root, {"data.yaml": data, "images/a.jpg": None, "labels/a.txt": "\n".join(lines), **files})


def problems(root, split="train", **rules):
    with pytest.raises(DatasetError) as caught:
        read(root, split, **rules)
    return caught.value.problems


@pytest.mark.parametrize("name", YOLO_TOOLS)
def test_what_a_tool_writes_is_read_as_it_is(tmp_path, name):
    files, splits = YOLO_TOOLS[name]
    write(tmp_path, files)
    (layout,) = find_layouts(tmp_path)
    assert layout.format == YOLO
    assert sorted(layout.splits) == sorted(splits)
    for split_name, images in splits.items():
        split = read(tmp_path, split_name)
        assert {image.id: image.path for image in split.images} == images
        assert split.classes == ("cat",)
        for image in split.images:
            np.testing.assert_allclose(image.boxes, [BOX], atol=1e-5)


def test_boxes_by_hand(tmp_path):
    folder(tmp_path, "1 0.5 0.5 1 1", "0 0.25 0.5 0.1 0.25", "", "1.0 5e-1 .25 0.5 0.5 ")
    (image,) = read(tmp_path, "train").images
    np.testing.assert_allclose(image.boxes, [[0, 0, 20, 12], [4, 4.5, 6, 7.5], [5, 0, 15, 6]], atol=1e-5)
    assert image.labels.tolist() == [1, 0, 1]
    assert not image.difficult.any()


def test_outlines_are_read_as_boxes_and_counted(tmp_path):
    folder(tmp_path, "0 0.1 0.5 0.6 0.25 0.35 1", CAT)
    split = read(tmp_path, "train")
    np.testing.assert_allclose(split.images[0].boxes[0], [2, 3, 12, 12], atol=1e-5)
    assert counts_of(split.notes) == [("objects with an outline", 1)]
    assert "labels/a.txt: line 1 (cat) has an outline of 3 points; read as the box around it" in str(split.notes[0])


def test_images_without_labels_and_labels_without_images_are_counted(tmp_path):
    folder(tmp_path, CAT, **{"images/b.jpg": None, "images/c.jpg": None, "labels/b.txt": "", "labels/z.txt": CAT})
    split = read(tmp_path, "train")
    assert [len(image.boxes) for image in split.images] == [1, 0, 0]
    assert counts_of(split.notes) == [("images without a label file", 1), ("label files without an image", 1)]
    assert f"{tmp_path}/images/c.jpg: has no label file {tmp_path}/labels/c.txt" in str(split.notes[0])


def test_a_label_file_that_comes_later_belongs_to_the_split(tmp_path):
    folder(tmp_path, CAT, **{"images/b.jpg": None})
    before = split_files(tmp_path, "train")
    write(tmp_path, {"labels/b.txt": CAT})
    assert before == ["data.yaml", "images/a.jpg", "labels/a.txt", "images/b.jpg"]
    assert split_files(tmp_path, "train") == [*before, "labels/b.txt"]


def test_names_that_lead_back_are_read_once(tmp_path):
    folder(tmp_path, CAT)
    (tmp_path / "images/again").symlink_to(tmp_path / "images")
    assert [image.path for image in read(tmp_path, "train").images] == ["images/a.jpg"]


def test_the_files_of_a_split(tmp_path):
    write(tmp_path, YOLO_TOOLS["CVAT's YOLO 1.1"][0])
    names = ["obj.data", "obj.names", "train.txt", "obj_train_data/a.jpg", "obj_train_data/a.txt"]
    assert split_files(tmp_path, "train") == names


@pytest.mark.parametrize(("line", "fault"), [
    ("2 0.5 0.5 0.1 0.1", "has the class 2, and names has 2 (0 to 1); correct it"),
    ("-1 0.5 0.5 0.1 0.1", "has the class -1, "),
    ("cat 0.5 0.5 0.1 0.1", "begins with 'cat'; expected the number of a class"),
    ("0.5 0.5 0.5 0.1 0.1", "begins with '0.5'; expected"),
    ("inf 0.5 0.5 0.1 0.1", "begins with 'inf'; expected"),
    ("0 0.5 0.5 0.1", "(cat) has 3 values after the class; expected 4 for a box, or two for each point"),
    ("0 0.5 0.5 0.1 0.1 0.9", "(cat) has 5 values after the class; expected 4"),
    ("0", "(cat) has 0 values after the class"),
    ("0 nan 0.5 0.1 0.1", "(cat) has the values nan 0.5 0.1 0.1, where a coordinate is not a number"),
    ("0 0.5 0.5 inf 0.1", "where a coordinate is not a number"),
    ("0 0.5 a 0.1 0.1", "where a coordinate is not a number"),
    ("0 0.1 0.1 0.5 nan 0.5 0.5", "where a coordinate is not a number"),
    ("0 0.5 0.5 0 0.1", "which is empty or reversed"),
    ("0 0.5 0.5 1.2 0.1", "(cat) has the values 0.5 0.5 1.2 0.1; expected fractions of the image's width and height"),
    ("0 120 80 40 30", "(cat) has the values 120 80 40 30; expected fractions"),
    ("0 0.5 0.5 -0.1 0.1", "(cat) has the values 0.5 0.5 -0.1 0.1; expected fractions"),
    ("0 0.1 0.1 0.5 1.1 0.5 0.5", "(cat) has the values 0.1 0.1 0.5 1.1 0.5 0.5; expected fractions"),
    ("0 0.05 0.5 0.4 0.1", "which is not inside the image of 20 x 12"),
])
def test_a_wrong_line_is_told_by_its_file_and_number(tmp_path, line, fault):
    folder(tmp_path, CAT.strip(), line)
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"{tmp_path}/labels/a.txt: line 2")
    assert fault in problem


def test_faults_of_one_kind_are_one_line(tmp_path):
    folder(tmp_path, *["7 0.5 0.5 0.1 0.1"] * 5, *["0 nan 0.5 0.1 0.1"] * 4)
    first, second = problems(tmp_path)
    assert first.startswith("5 objects of no known class; ")
    assert second.startswith("4 boxes with a coordinate that is not a number; ")


@pytest.mark.parametrize("line", ["7 0.5 0.5 0.1 0.1", "0 nan 0.5 0.1 0.1", "0 120 80 40 30"])
def test_bad_objects_are_left_out_if_the_user_wants_it(tmp_path, line):
    folder(tmp_path, CAT, line)
    split = read(tmp_path, "train", on_bad_annotation="drop")
    assert len(split.images[0].boxes) == 1
    assert sum(remark.count for remark in split.dropped) == 1


def test_boxes_that_pass_the_edge_are_cut(tmp_path):
    folder(tmp_path, "0 0.05 0.5 0.4 0.5")
    (image,) = read(tmp_path, "train", on_bad_annotation="clip").images
    np.testing.assert_allclose(image.boxes, [[0, 3, 5, 9]], atol=1e-5)


@pytest.mark.parametrize(("data", "fault"), [
    ("train: images\nnames: [cat", "not readable as YAML"),
    ("train: images\nnames: !!python/object/apply:os.system ['true']", "not readable as YAML"),
    ("train: images\na: &a {x: 1}\nnames: {<<: *a}\n", "has YAML's <<, which is not read"),
    ("train: images\nnames: " + "[" * 3000, "not readable as YAML"),
    ("- cat\nnames:\n", "not readable as YAML"),
    ("names: [cat]\n", "has no split; expected train, val or test"),
    ("train: {a: b}\nnames: [cat]\n", "train is {'a': 'b'}; expected a folder of images"),
    ("path: [a]\ntrain: images\nnames: [cat]\n", "path is ['a']; expected the name of a folder"),
    ("train: photos\nnames: [cat]\n", "train is 'photos'; no such folder of images, and no such list"),
    ("train: /etc\nnames: [cat]\n", "train is '/etc'; leads out of the data set's folder"),
    ("train: ../../etc\nnames: [cat]\n", "train is '../../etc'; no such folder"),
    ("train: images\nnames: cat\n", "names is 'cat'; expected a list of class names"),
    ("train: images\nnames: []\n", "names is []; expected"),
    ("train: images\nnames: [cat, true]\n", "class 1 has the name True; write a word, in quotes"),
    ("train: images\nnames: {0: cat, 2: dog}\n", "names has no class 1; expected the numbers from 0 to 1"),
    ("train: images\nnc: 3\nnames: [cat, dog]\n", "nc is 3, and names has 2"),
    ("train: images\nnc: many\nnames: [cat, dog]\n", "nc is 'many'; expected the number of classes"),
    ("train: images\nnames: [cat]\nkpt_shape: [2, 4]\n", "kpt_shape is [2, 4]; expected"),
    ("train: images\nnames: [cat]\nkpt_shape: [2, 3]\nflip_idx: [1, 1]\n", "flip_idx is [1, 1]; expected 2 numbers"),
    ("train: images\nnames: [cat]\nkpt_shape: [2, 3]\nkpt_names: {0: [a]}\n", "kpt_names is {0: ['a']}; expected the same 2"),
])
def test_a_wrong_data_yaml(tmp_path, data, fault):
    folder(tmp_path, CAT, data=data)
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"{tmp_path}/data.yaml: ")
    assert fault in problem


@pytest.mark.parametrize(("names", "classes"), [
    ("names: {1: dog, 0: cat}", ("cat", "dog")), ("names: {'0': cat, '1': dog}", ("cat", "dog")),
    ("names: [7, 8]", ("7", "8")), ("nc: 2", ("class_0", "class_1")), ("names: ['on', ' off ']", ("off", "on")),
])
def test_names(tmp_path, names, classes):
    folder(tmp_path, CAT, "1 0.5 0.5 1 1", data=f"train: images\n{names}\n")
    assert read(tmp_path, "train").classes == classes


def test_one_split_that_is_missing_does_not_harm_the_others(tmp_path):
    folder(tmp_path, CAT, data="train: images\ntest: ../test/images\nnames: [cat]\n")
    assert len(read(tmp_path, "train").images) == 1
    assert "test is '../test/images'; no such folder" in problems(tmp_path, "test")[0]


@pytest.mark.parametrize("line", ["../a.jpg/../../a.jpg", "/etc/passwd.jpg", "x/../../../a.jpg"])
def test_lines_that_lead_out_of_the_folder_are_refused(tmp_path, line):
    root = folder(tmp_path / "data", CAT, data="train: train.txt\nnames: [cat]\n", **{"train.txt": f"images/a.jpg\n{line}\n"})
    write(tmp_path, {"a.jpg": None})
    (problem,) = problems(root)
    assert "train.txt: line 2" in problem or "a.jpg: no such file" in problem


def test_a_list_with_an_absolute_path_of_this_folder(tmp_path):
    folder(tmp_path, CAT, data="train: train.txt\nnames: [cat]\n", **{"train.txt": f"{tmp_path}/images/a.jpg\nimages/a.jpg\n"})
    split = read(tmp_path, "train")
    assert [image.path for image in split.images] == ["images/a.jpg"]
    assert counts_of(split.notes) == [("images that are named twice", 1)]


def test_a_listed_image_that_is_missing(tmp_path):
    folder(tmp_path, CAT, data="train: train.txt\nnames: [cat]\n", **{"train.txt": "images/a.jpg\nimages/b.jpg\n"})
    (problem,) = problems(tmp_path)
    assert problem == f"{tmp_path}/images/b.jpg: no such file; add it or take its image out of the list"


def test_images_of_other_kinds_are_not_passed_over(tmp_path):
    folder(tmp_path, CAT, **{"images/b.tiff": b"II*\0"})
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"{tmp_path}/images/b.tiff: not a readable image (none of JPEG, PNG, ")


def test_keypoints(tmp_path):
    data = "train: images\nnames: [cat]\nkpt_shape: [3, 3]\nflip_idx: [0, 2, 1]\nkpt_names: {0: [nose, left_eye, right_eye]}\n"
    folder(tmp_path, "0 0.5 0.5 1 1 0.5 0.25 2 0.1 0.5 1 0 0 0", data=data)
    split = read(tmp_path, "train")
    assert split.skeleton.names == ("nose", "left_eye", "right_eye")
    assert split.skeleton.flip_pairs == ((1, 2),)
    np.testing.assert_allclose(split.images[0].keypoints, [[[10, 3, 2], [2, 6, 1], [0, 0, 0]]], atol=1e-5)
    (tmp_path / "labels/a.txt").write_text(CAT)
    assert "has 4 values after the class; expected 13: a box, and the keypoints" in problems(tmp_path)[0]


def test_keypoints_of_two_values(tmp_path):
    folder(tmp_path, "0 0.5 0.5 1 1 0.5 0.25 0 0", data="train: images\nnames: [cat]\nkpt_shape: [2, 2]\n")
    split = read(tmp_path, "train")
    assert split.skeleton.names == ("keypoint_1", "keypoint_2")
    np.testing.assert_allclose(split.images[0].keypoints, [[[10, 3, 2], [0, 0, 0]]], atol=1e-5)


@pytest.mark.parametrize("files", [
    {"ImageSets/Main/train.txt": "a", "Annotations/a.xml": xml(), "JPEGImages/a.jpg": None},
    {"annotations/instances_train.json": instances("a.jpg"), "images/a.jpg": None},
])
def test_a_strange_yaml_file_and_classes_do_no_harm(tmp_path, files):
    write(tmp_path, {**files, "settings.yaml": "names: 3\n", "classes.txt": "cat\n"})
    assert len(read(tmp_path, "train").images) == 1


def test_two_layouts_are_told(tmp_path):
    folder(tmp_path, CAT, **{"annotations/instances_train.json": instances("a.jpg")})
    assert "has annotations/instances_SPLIT.json (COCO's format) and data.yaml (YOLO's format)" in problems(tmp_path)[0]


def test_a_divided_split(tmp_path):
    write(tmp_path, YOLO_TOOLS["labelImg"][0])
    train, test = (read(tmp_path, split, test_fraction=0.5) for split in ("train", "test"))
    assert sorted(image.id for image in (*train.images, *test.images)) == ["IMG 2 (1)", "a"]


def test_label_names():
    assert label_names("images/train/a.b.jpg") == ["labels/train/a.b.txt", "images/train/a.b.txt"]
    assert label_names("images/x/images/a.jpg") == ["images/x/labels/a.txt", "images/x/images/a.txt"]
    assert label_names("photos/images.jpg") == ["photos/images.txt"]


def test_ids_are_short_and_different():
    names = ["x/a.jpg", "x/b.jpg", "y/b.jpg", "y/c.jpg", "y/c.png"]
    assert list(ids_of(names).values()) == ["a", "x/b", "y/b", "y/c.jpg", "y/c.png"]
