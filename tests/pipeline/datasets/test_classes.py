"""A choice of classes: objects of others are left out and counted; and which names a class may have."""

import pytest

from pipeline.datasets.classes import fault_of_class, listed
from tests.pipeline.datasets.layouts import LAYOUTS, Coco, Item, Voc, counts_of, encoded, pixels_of, problems, read

CONTENT = encoded(pixels_of())
BOX, BAD = (2, 3, 12, 13), (2, 3, 99, 13)
OTHERS = "objects of other classes"
EMPTY = "images without an object of --classes"


def item(*names, id=1, box=BOX):
    return Item(id, encoded(pixels_of(id)), tuple((name, *box) for name in names))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_others_are_left_out_and_counted_by_class(tmp_path, layout):
    layout(tmp_path, item("cat", "dog", "cow"), item("dog", "dog", id=2), item("cat", id=3), item(id=4))
    split = read(tmp_path, ["cat"], only_classes=True, every_class=True)
    assert split.classes == ("cat",)
    assert [image.labels.tolist() for image in split.images] == [[0], [], [0], []]
    assert counts_of(split.dropped) == [(OTHERS, 4)]
    assert split.dropped[0].examples == ("3 objects of class 'dog'", "1 object of class 'cow'")
    assert counts_of(split.notes) == [(EMPTY, 2)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_boxes_of_the_wanted_classes_stay_strictly_checked(tmp_path, layout):
    layout(tmp_path, Item(1, CONTENT, (("cat", *BOX), ("cat", *BAD), ("dog", *BAD))))
    (problem,) = problems(tmp_path, ["cat"], only_classes=True)
    assert "(cat" in problem
    assert "not inside" in problem


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_a_choice_an_unknown_class_is_an_error(tmp_path, layout):
    """The names are those of the training split then."""
    layout(tmp_path, item("cat", "dog", "dog"))
    (problem,) = problems(tmp_path, ["cat"])
    assert problem.startswith("2 objects of no known class; ")
    assert counts_of(read(tmp_path, ["cat"], on_bad_annotation="drop").dropped) == [("objects of no known class", 2)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("wanted", "nearest"), [("prson", "person"), ("Person", "person"), ("trafic light", "traffic light")])
def test_a_misspelt_class_is_told_with_the_nearest(tmp_path, layout, wanted, nearest):
    layout(tmp_path, item("person", "traffic light", "cat"))
    (problem,) = problems(tmp_path, ["cat", wanted], only_classes=True, every_class=True)
    assert f"no object is of class '{wanted}' (did you mean '{nearest}'?); change --classes" in problem
    (problem,) = problems(tmp_path, [wanted], only_classes=True, every_class=True)
    assert nearest in problem


def test_a_class_like_no_other(tmp_path):
    Voc(tmp_path, item("person", "cat"))
    (problem,) = problems(tmp_path, ["cat", "xylophone"], only_classes=True, every_class=True)
    assert "no object is of class 'xylophone'; change --classes" in problem


def test_a_split_for_tests_needs_not_every_class(tmp_path):
    Voc(tmp_path, item("cat"), item("dog", id=2))
    assert read(tmp_path, ["cat", "cow"], only_classes=True).classes == ("cat", "cow")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_split_without_an_object_says_what_was_left_out(tmp_path, layout):
    layout(tmp_path, item("dog", "dog"))
    problem, reason = problems(tmp_path, ["cow"], only_classes=True)
    assert "none of its 1 image(s) has an object of cow" in problem
    assert reason.startswith("2 objects of other classes; left out")


def test_many_classes_are_a_short_line(tmp_path):
    names = [f"class{number:04}" for number in range(1500)]
    Coco(tmp_path, item(*names))
    (remark,) = read(tmp_path, names[:200], only_classes=True).dropped
    assert (remark.count, len(remark.examples)) == (1300, 1300)
    assert len(str(remark)) < 500
    (problem,) = problems(tmp_path, names[:200])
    assert len(problem) < 1500


def test_listed():
    assert listed(("a", "b")) == "a, b"
    assert listed(tuple("abcdefghijklm")) == "a, b, c, d, e, f, g, h, i, j and 3 more"


class TestOrphans:
    """COCO's annotations of images that the file does not list."""

    def test_left_out_and_counted(self, tmp_path):
        coco = Coco(tmp_path, item("cat"))
        text = coco.file.read_text()
        more = "".join(f', {{"id": {id}, "image_id": {id}, "category_id": 1, "bbox": [0, 0, -1, 9]}}' for id in range(50, 5050))
        coco.file.write_text(text[:-2] + more + "]}")
        split = read(tmp_path)
        assert [len(image.boxes) for image in split.images] == [1]
        assert counts_of(split.notes) == [("annotations of images that the file does not list", 5000)]
        assert len(str(split.notes[0])) < 1000

    def test_a_split_of_nothing_else_says_so(self, tmp_path):
        coco = Coco(tmp_path, item("cat"))
        coco.file.write_text(coco.file.read_text().replace('"image_id": 1', '"image_id": 7'))
        problem, reason = problems(tmp_path)
        assert "none of its 1 image(s) has an object" in problem
        assert "has the image_id 7, and the file lists no image of this id; left out" in reason


class TestNames:
    @pytest.mark.parametrize("name", [
        "cat", "Cabinet/shelf", "Kite\\toy", "100 %", "größe", "..", ".", "-", "a,b;c", "*?<>|", "犬" * 70,
        "x" * 230, "\u202etac",
    ])
    def test_any_characters(self, name):
        assert fault_of_class("test", name) == ""

    @pytest.mark.parametrize(("name", "fault"), [
        ("", "is empty"), ("  ", "is empty"), ("traffic\nlight", r"has a line end (\n)"),
        ("a\u2028b", r"has a line end (\u2028)"), ("a\tb", r"has a control character (\t)"),
        ("a\0b", r"has a control character (\x00)"),
        ("a\x1b[31m", r"has a control character (\x1b)"),
        ("x" * 300, "is too long: the name of its result file would have 319 bytes, and may have 255"),
        ("犬" * 80, "is too long: the name of its result file would have 259 bytes, and may have 255"),
        ("/" * 100, "is too long: the name of its result file would have 319 bytes, and may have 255"),
    ])
    def test_what_is_refused_and_why(self, name, fault):
        assert fault_of_class("test", name) == fault

    def test_the_name_of_the_split_counts(self):
        name = "x" * (255 - len("comp4_det_test_.txt"))
        assert fault_of_class("test", name) == ""
        assert "is too long" in fault_of_class("test2", name)
