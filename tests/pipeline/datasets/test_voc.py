import hashlib
import io
import os
import shutil
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.datasets.voc import read_split, split_files
from pipeline.datasets.voc_writing import AnnotatedImage, write_split
from pipeline.errors import DatasetError, PipelineError
from tests.tiers import examples

WIDTH, HEIGHT = 20, 12
CAT = ("cat", 3, 2, 10, 9)
BNDBOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"


def object_xml(name, *corners, extra=""):
    tags = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    return f"<object><name>{name}</name>{extra}<bndbox>{tags}</bndbox></object>"


def annotation_xml(*objects, size=f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"):
    return f"<annotation>{size}{''.join(objects)}</annotation>"


def image_bytes(format="JPEG", size=(WIDTH, HEIGHT)):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)).save(buffer, format)
    return buffer.getvalue()


class Folder:
    """A VOC folder in the making: `add` puts in an image, `read` reads the split `train`."""

    def __init__(self, root):
        self.root = root
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / name).mkdir(parents=True)
        self.ids = []

    def add(self, id, *objects, xml=None, image=None, suffix=".jpg"):
        self.ids.append(id)
        (self.root / "Annotations" / f"{id}.xml").write_text(annotation_xml(*objects) if xml is None else xml)
        (self.root / "JPEGImages" / f"{id}{suffix}").write_bytes(image_bytes() if image is None else image)
        return self

    def list(self, text=None, split="train"):
        path = self.root / "ImageSets" / "Main" / f"{split}.txt"
        path.write_text("".join(f"{id}\n" for id in self.ids) if text is None else text)
        return self

    def digests(self, split="train"):
        files = [name for name in split_files(self.root, split) if os.path.isfile(self.root / name)]
        return {name: hashlib.sha256((self.root / name).read_bytes()).hexdigest() for name in files}

    def read(self, classes=None, split="train", **kwargs):
        return read_split(self.root, split, classes, self.digests(split), **kwargs)

    def problems(self, *args, **kwargs):
        with pytest.raises(DatasetError) as caught:
            self.read(*args, **kwargs)
        return caught.value.problems


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "voc")


def test_corners_become_edges_and_fractions_stay(folder):
    folder.add("a", object_xml("dog", 1, 1, WIDTH, HEIGHT), object_xml("cat", 2.5, 3, 9.25, 3, extra="<difficult>1</difficult>"))
    split = folder.list().read()
    (image,) = split.images
    assert (split.name, split.classes, split.dropped) == ("train", ("cat", "dog"), ())
    assert image.boxes.dtype == np.float32
    np.testing.assert_array_equal(image.boxes, [[0, 0, WIDTH, HEIGHT], [1.5, 2, 9.25, 3]])
    np.testing.assert_array_equal(image.labels, [1, 0])
    np.testing.assert_array_equal(image.difficult, [False, True])
    assert (image.id, image.path, image.width, image.height) == ("a", "JPEGImages/a.jpg", WIDTH, HEIGHT)
    assert image.digest == hashlib.sha256(image_bytes()).hexdigest()


def test_labels_follow_the_classes_given_and_the_list_keeps_its_order(folder):
    folder.add("b", object_xml(*CAT)).add("a").add("c", object_xml("dog", 1, 1, 2, 2))
    split = folder.list().read(["zebra", "dog", "cat"])
    assert split.classes == ("zebra", "dog", "cat")
    assert [image.id for image in split.images] == ["b", "a", "c"]
    assert [image.labels.tolist() for image in split.images] == [[2], [], [1]]
    assert split.images[1].boxes.shape == (0, 4)


def test_classes_found_are_sorted(folder):
    names = "horse", "zebra", "cat", "bus", "dog", "ant"
    folder.add("a", *(object_xml(name, 1, 1, 2, 2) for name in names)).list()
    assert folder.read().classes == tuple(sorted(names))


def test_split_files_names_the_list_then_annotation_and_image_of_each_id(folder):
    folder.add("b").add("a", suffix=".png", image=image_bytes("PNG")).list("b\n\na\r\nmissing\n../../x\n/etc/passwd\nb\n")
    root = folder.root
    names = ["ImageSets/Main/train.txt", "Annotations/b.xml", "JPEGImages/b.jpg", "Annotations/a.xml", "JPEGImages/a.png",
             "Annotations/missing.xml", "JPEGImages/missing.jpg"]
    assert split_files(root, "train") == names


def test_split_files_never_raises(tmp_path, folder):
    for split in ("none", "../x", "nul\0"):
        assert split_files(tmp_path / "nowhere", split) == [f"ImageSets/Main/{split}.txt"]
    folder.list("x" * 5000 + "\n")
    assert len(split_files(folder.root, "train")) == 3
    assert "cannot be read" in folder.problems()[0]


def test_relative_root(folder, monkeypatch):
    folder.add("a", object_xml(*CAT)).list()
    monkeypatch.chdir(folder.root.parent)
    folder.root = folder.root.relative_to(folder.root.parent)
    assert len(folder.read().images) == 1


@pytest.mark.parametrize(("bad", "message"), [
    (object_xml("cow", 3, 2, 10, 9), "object 2 (cow) is of no known class (cat)"),
    (object_xml("cat", -1, 2, 10, 9), "object 2 (cat) has the box (-1, 2, 10, 9), which is not inside (1, 1, 20, 12)"),
    (object_xml("cat", 3, -0.1, 10, 9), "not inside"),
    (object_xml("cat", 3, 2, WIDTH + 2, 9), "not inside"),
    (object_xml("cat", 3, 2, 10, HEIGHT + 1.5), "not inside"),
    (object_xml("cat", 3, 2, 2, 9), "empty or reversed"),
    (object_xml("cat", 10, 2, 3, 9), "empty or reversed"),
    (object_xml("cat", 3, 9, 10, 2), "empty or reversed"),
    (object_xml("cat", 3, "x", 10, 9), "(3, x, 10, 9), where a coordinate is not a number"),
    (object_xml("cat", 3, "nan", 10, 9), "not a number"),
    (object_xml("cat", 3, 2, "inf", 9), "not a number"),
    (object_xml("cat", 3, 2, "", 9), "not a number"),
])
def test_bad_objects_are_errors_or_dropped_and_listed(folder, bad, message):
    folder.add("a", object_xml(*CAT), bad, object_xml(*CAT)).list()
    (problem,) = folder.problems(["cat"])
    assert message in problem
    assert str(folder.root / "Annotations/a.xml") in problem
    split = folder.read(["cat"], on_bad_annotation="drop")
    assert list(map(str, split.dropped)) == [problem]
    assert split.images[0].boxes.tolist() == [[2, 1, 10, 9]] * 2


@pytest.mark.parametrize(("objects", "message"), [
    (["<object><bndbox/></object>"], "object 1 (unnamed) has no <name>"),
    ([object_xml(" ", 1, 1, 2, 2)], "has no <name>"),
    (["<object><name>cat</name></object>"], "object 1 (cat) has 0 <bndbox>; expected one with xmin, ymin, xmax, ymax"),
    (["<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>"], "has 1 <bndbox>; expected one with xmin"),
    ([object_xml(*CAT, extra=BNDBOX)], "has 2 <bndbox>"),
    ([object_xml(*CAT, extra="<difficult>maybe</difficult>")], "has <difficult> 'maybe'; expected 0 or 1"),
])
def test_what_an_object_must_have_is_never_dropped(folder, objects, message):
    folder.add("a", object_xml(*CAT), xml=annotation_xml(*objects)).list()
    assert message in folder.problems()[0]
    assert message in folder.problems(on_bad_annotation="drop")[0]


BOMB = '<!DOCTYPE annotation [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><annotation>&b;</annotation>'


@pytest.mark.parametrize(("xml", "message"), [
    ("<annotation>", "a.xml: not readable as XML"),
    ("", "not readable as XML"),
    (BOMB, "not readable as XML"),
    ('<!DOCTYPE annotation SYSTEM "x.dtd"><annotation/>', "not readable as XML"),
    ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "not readable as XML"),
    ("<html/>", "its root element is <html>; expected a VOC file with <annotation>"),
    (annotation_xml(size="<size><width>12</width><height>20</height></size>"), "<size> is 12 x 20, the image is 20 x 12"),
    (annotation_xml(size="<size><width>w</width><height>20</height></size>"), "<size> is 'w' x '20'; expected pixels"),
])
def test_bad_annotation_files(folder, xml, message):
    folder.add("a", xml=xml).add("b", object_xml(*CAT)).list()
    (problem,) = folder.problems(on_bad_annotation="drop")
    assert message in problem
    assert str(folder.root / "Annotations/a.xml") in problem


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0</width><height>0</height></size>"])
def test_size_may_be_missing_or_unknown(folder, size):
    folder.add("a", xml=annotation_xml(object_xml(*CAT), size=size)).list()
    assert folder.read().images[0].width == WIDTH


@pytest.mark.parametrize(("suffix", "content", "message"), [
    (".jpg", b"", "a.jpg: not a readable image"),
    (".jpg", b"<html>", "a.jpg: not a readable image"),
    (".jpg", image_bytes()[:-20], "a.jpg: broken image data"),
    (".png", image_bytes("PNG")[:-100], "a.png: broken image data"),
])
def test_bad_images_do_not_hide_the_faults_of_their_annotations(folder, suffix, content, message):
    bad = object_xml("cat", 1e39, 1, 1e40, 1), object_xml("cat", 30, 1, 29, 1), object_xml("cat", 30, 1, 300, 1)
    folder.add("a", *bad, suffix=suffix, image=content).list()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problems = folder.problems()
    assert len(problems) == 3
    assert message in problems[0]
    assert "object 1" in problems[1]
    assert "object 2 (cat) has the box (30, 1, 29, 1), which is empty or reversed" in problems[2]


def test_jpeg_and_png_are_found(folder):
    folder.add("a", object_xml(*CAT), suffix=".jpeg").add("b", suffix=".png", image=image_bytes("PNG")).list()
    assert [image.path for image in folder.read().images] == ["JPEGImages/a.jpeg", "JPEGImages/b.png"]


@pytest.mark.parametrize(("text", "message"), [
    ("", "train.txt: lists no image"),
    (" \n\n", "train.txt: lists no image"),
    ("a\na\n", "train.txt: line 2: id 'a' is on line 1 already"),
    ("a\n../a\n", "train.txt: line 2: id '../a' leads out of the folder"),
    ("a\n/etc/passwd\n", "id '/etc/passwd' leads out"),
    ("a\n..\n", "id '..' leads out"),
    ("a\n..\\b\n", "leads out"),
    ("a\nmy photo b\n", "line 2: 'my photo b' has 3 columns, and no file has this name; expected one id alone"),
    ("a\na 1\n", "line 2: 'a 1' has 2 columns"),
    ("a 1\nb -1\nc 0\n", "train.txt: a list for one class"),
])
def test_bad_lists(folder, text, message):
    folder.add("a", object_xml(*CAT)).list(text)
    (problem,) = folder.problems(on_bad_annotation="drop")
    assert message in problem


def test_a_list_that_is_no_text(folder):
    folder.add("a").list()
    (folder.root / "ImageSets/Main/train.txt").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8 text" in folder.problems()[0]


def test_missing_files(folder):
    folder.add("a", object_xml(*CAT)).add("b").add("c").list()
    (folder.root / "Annotations/b.xml").unlink()
    (folder.root / "JPEGImages/c.jpg").unlink()
    first, second = folder.problems(on_bad_annotation="drop")
    assert f"{folder.root}/Annotations/b.xml: no such file; add it" in first
    assert f"{folder.root}/JPEGImages/c.jpg: no such file (nor .jpeg, .png, .bmp, .webp, in either case); add it" in second


def test_missing_list_names_those_that_exist(folder):
    folder.add("a").list().list(split="val")
    assert "the splits of this data set are: train, val" in folder.problems(split="test")[0]
    assert "no such list" in folder.problems(split="../Main/train")[0]


def test_missing_folders(folder):
    shutil.rmtree(folder.root / "Annotations")
    shutil.rmtree(folder.root / "ImageSets")
    (problem,) = folder.problems()
    assert problem.startswith(f"{folder.root}/Annotations, {folder.root}/ImageSets/Main: no such folder; expected")
    shutil.rmtree(folder.root)
    (problem,) = folder.problems()
    assert problem.startswith(f"{folder.root}: no such folder; expected a data set in VOC layout, or in COCO's")


def test_a_split_needs_an_object(folder):
    folder.add("a").add("b", object_xml("cow", 1, 1, 2, 2)).list()
    assert folder.read().classes == ("cow",)
    problem, reason = folder.problems(["cat"], on_bad_annotation="drop")
    assert "train.txt: none of its 2 image(s) has an object of cat; annotate some" in problem
    assert "object 1 (cow) is of no known class (cat)" in reason


@pytest.mark.parametrize("name", ["ImageSets/Main/train.txt", "Annotations/a.xml", "JPEGImages/a.jpg"])
def test_changed_files_are_noticed(folder, name):
    folder.add("a", object_xml(*CAT)).list()
    others = {file: digest for file, digest in folder.digests().items() if file != name}
    for known in (others, {**others, folder.root / name: "0" * 64}):
        with pytest.raises(DatasetError) as caught:
            read_split(folder.root, "train", None, known)
        assert f"{folder.root / name}: changed while it was being indexed; run again" in caught.value.problems


def test_all_problems_are_reported_together(folder):
    folder.add("a", object_xml("cow", -9, 1, 2, 2)).add("b", image=b"").add("c", xml="<")
    folder.ids += ["d", "../e"]
    problems = folder.list().problems(["cat"])
    parts = ["../e", "(cow) is of no known class", "(cow) has the box", "b.jpg", "c.xml", "d.jpg", "d.xml"]
    assert len(problems) == len(parts)
    assert all(part in problem for part, problem in zip(parts, problems, strict=True))


def test_unknown_policy(folder):
    with pytest.raises(PipelineError, match="on_bad_annotation is 'skip'; expected one of error, clip, drop"):
        folder.read(on_bad_annotation="skip")


@st.composite
def annotated_images(draw):
    count = draw(st.integers(0, 4))
    x1 = draw(st.lists(st.integers(0, WIDTH - 1), min_size=count, max_size=count))
    y1 = draw(st.lists(st.integers(0, HEIGHT - 1), min_size=count, max_size=count))
    boxes = [(x, y, draw(st.integers(x + 1, WIDTH)), draw(st.integers(y + 1, HEIGHT))) for x, y in zip(x1, y1, strict=True)]
    names = draw(st.lists(st.sampled_from(["cat", "a&b", "<x>", "größe"]), min_size=count, max_size=count))
    difficult = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return np.array(boxes, np.float32).reshape(-1, 4), names, difficult


@settings(max_examples=examples(50), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(annotated_images(), max_size=3))
def test_reading_gives_back_what_was_written(tmp_path, drawn):
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    images = [AnnotatedImage(f"i{number}", pixels, *annotations) for number, annotations in enumerate(drawn)]
    images.append(AnnotatedImage("last", pixels, np.array([[0, 0, 1, 1]]), ["cat"], [False]))
    write_split(tmp_path, "train", iter(images))
    digests = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in split_files(tmp_path, "train")}
    split = read_split(tmp_path, "train", None, digests)
    assert [image.id for image in split.images] == [image.id for image in images]
    for record, image in zip(split.images, images, strict=True):
        np.testing.assert_array_equal(record.boxes, image.boxes)
        assert [split.classes[label] for label in record.labels] == list(image.names)
        assert record.difficult.tolist() == list(image.difficult)
        assert (record.width, record.height) == (WIDTH, HEIGHT)


def test_written_corners_are_voc_corners_and_bytes_are_the_same_twice(tmp_path):
    image = AnnotatedImage("a", np.full((HEIGHT, WIDTH, 3), 200, np.uint8), np.array([[2, 1, 10, 9.5]]), ["cat"], [True])
    for name in ("one", "two"):
        write_split(tmp_path / name, "train", [image])
    with Image.open(tmp_path / "one/JPEGImages/a.jpg") as jpeg:
        # The first entry of the standard luminance table, 16, at quality 95.
        assert jpeg.quantization[0][0] == 2
    xml = (tmp_path / "one/Annotations/a.xml").read_text()
    assert "".join(xml.split()) == (
        "<annotation><filename>a.jpg</filename><size><height>12</height><width>20</width><depth>3</depth></size>"
        "<object><name>cat</name><difficult>1</difficult>"
        "<bndbox><xmin>3</xmin><ymin>2</ymin><xmax>10</xmax><ymax>9.5</ymax></bndbox></object></annotation>"
    )
    for file in ("Annotations/a.xml", "JPEGImages/a.jpg", "ImageSets/Main/train.txt"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_real_photographs(shared):
    root = shared / "datasets" / "voc5"
    if not root.is_dir():
        pytest.skip("data set absent: datasets/voc5")
    digests = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in split_files(root, "smalltest")}
    split = read_split(root, "smalltest", None, digests)
    assert split.classes == ("bus", "car", "cat", "person", "train")
    assert len(split.images) == 100
