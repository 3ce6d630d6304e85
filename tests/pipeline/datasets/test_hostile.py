"""Data sets that somebody else made: whatever is in them, a split is read or all its faults are told, a line each."""

import contextlib
import hashlib
import json
import os

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import formats
from pipeline.errors import DatasetError
from tests.tiers import examples

XML = ("<annotation><size><width>{width}</width><height>8</height></size><object><name>{name}</name><bndbox><xmin>1</xmin>"
       "<ymin>1</ymin><xmax>5</xmax><ymax>{bottom}</ymax></bndbox></object></annotation>")
LAYOUTS = ("voc", "coco", "yolo")
WITH_SIZES = ("voc", "coco")  # of images
FILES = {
    "voc": {"list": "ImageSets/Main/train.txt", "annotation": "Annotations/1.xml", "image": "JPEGImages/1.jpg"},
    "coco": {"list": "annotations/instances_train.json", "image": "train/1.jpg"},
    "yolo": {"list": "data.yaml", "images": "train.txt", "annotation": "labels/1.txt", "image": "images/1.jpg"},
}
# A data.yaml that cannot be read does not show the layout.
PLACES = [(layout, place) for layout in LAYOUTS for place in FILES[layout] if (layout, place) != ("yolo", "list")]


class Folder:
    """A data set of one image of 10 x 8 pixels with one cat, in any layout."""

    def __init__(self, root, layout):
        self.root, self.layout = root, layout
        self.files = {name: root / path for name, path in FILES[layout].items()}
        for path in self.files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(self.files["image"])
        self.write()

    def write(self, width="10", name="cat", bottom="5", id="1"):
        if self.layout == "voc":
            self.files["list"].write_text(f"{id}\n")
            self.files["annotation"].write_text(XML.format(width=width, name=name, bottom=bottom))
            return
        if self.layout == "yolo":
            self.files["list"].write_text(f"train: train.txt\nnames: [{json.dumps(name)}]\n")
            self.files["images"].write_text(f"images/{id}.jpg\n")
            # The lower edge is `bottom` pixels from the top of 8.
            half = bottom if bottom != "5" else "0.3125"
            self.files["annotation"].write_text(f"0 0.25 {half} 0.5 {float(half) * 2 if half == '0.3125' else half}\n")
            return
        self.files["list"].write_text(
            f'{{"images": [{{"id": {id}, "file_name": "1.jpg", "width": {width}, "height": 8}}], '
            f'"categories": [{{"id": 1, "name": "{name}"}}], '
            f'"annotations": [{{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, {bottom}]}}]}}'
        )

    def read(self):
        files = [name for name in formats.split_files(self.root, "train") if os.path.isfile(self.root / name)]
        digests = {name: hashlib.sha256((self.root / name).read_bytes()).hexdigest() for name in files}
        return formats.read_split(self.root, "train", None, digests)

    def problems(self):
        with pytest.raises(DatasetError) as caught:
            self.read()
        assert all(line.isprintable() for line in caught.value.lines)
        return caught.value.lines[1:]


@pytest.fixture
def make(tmp_path):
    return lambda layout: Folder(tmp_path / layout, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_as_it_should_be(make, layout):
    assert make(layout).read().images[0].boxes.tolist() == [[0, 0, 5, 5]]


@pytest.mark.parametrize(("layout", "place"), PLACES)
@pytest.mark.parametrize("kind", ["pipe", "device", "link to pipe"])
def test_what_is_no_file_is_named_and_not_waited_for(make, tmp_path, layout, place, kind):
    folder = make(layout)
    path = folder.files[place]
    path.unlink()
    if kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe" if kind == "link to pipe" else path)
        if kind == "link to pipe":
            path.symlink_to(tmp_path / "pipe")
    description = "a device" if kind == "device" else "a named pipe"
    assert f"{path}: cannot be read (it is {description}, not a regular file); mend that or take" in "\n".join(folder.problems())


@pytest.mark.parametrize("layout", WITH_SIZES)
@pytest.mark.parametrize("width", ["9" * 400, "-" + "9" * 400, "1" * 4000, "1e400", "NaN", "-Infinity"])
def test_sizes_beyond_any_number(make, layout, width):
    folder = make(layout)
    folder.write(width=width)
    if width.startswith("-9"):  # tools write a size below 1 where they do not know it
        with contextlib.suppress(DatasetError):
            folder.read()
        return
    (problem,) = folder.problems()
    assert "expected pixels" in problem or "the image is 10 x 8" in problem


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bottom", ["9" * 400, "1" * 4000, "1e400", "NaN", "-Infinity"])
def test_corners_beyond_any_number(make, layout, bottom):
    folder = make(layout)
    folder.write(bottom=bottom)
    (problem,) = folder.problems()
    assert "or leave such boxes out with --on-bad-annotation drop" in problem


def test_numbers_that_python_does_not_convert(make):
    folder = make("coco")
    for setting in ("width", "bottom", "id"):
        folder.write(**{setting: "9" * 5000})
        (problem,) = folder.problems()
        assert f"{folder.files['list']}: not readable as JSON (" in problem


@pytest.mark.parametrize("content", [b"[" * 10**5, b'{"images":' * 10**5, b"\xff", b'{"images": ["\\ud800"]}'])
def test_json_that_is_none(make, content):
    folder = make("coco")
    folder.files["list"].write_bytes(content)
    (problem,) = folder.problems()
    assert problem.startswith(f"{folder.files['list']}: not readable as JSON (")


@pytest.mark.parametrize("value", ["\\ud800.png", "\\u0000.png", "x" * 5000, "a/../../1.jpg"])
def test_file_names_that_no_file_has(make, value):
    folder = make("coco")
    folder.files["list"].write_text(folder.files["list"].read_text().replace("1.jpg", value))
    assert len(folder.problems()) == 1


@pytest.mark.parametrize("value", [[[[[[1]]]]], "\x1b[31m", {"a": "\n"}, [1] * 10**5, "x" * 10**5, -1, 1.5, None, True])
@pytest.mark.parametrize(("table", "key"), [
    ("images", "id"), ("images", "file_name"), ("images", "width"), ("categories", "id"), ("categories", "name"),
    ("annotations", "id"), ("annotations", "image_id"), ("annotations", "category_id"), ("annotations", "bbox"),
    ("annotations", "iscrowd"), ("annotations", "ignore"), ("annotations", "difficult"),
])
def test_values_of_other_types_are_told_in_a_line(make, table, key, value):
    folder = make("coco")
    document = json.loads(folder.files["list"].read_text())
    document[table][0][key] = value
    folder.files["list"].write_text(json.dumps(document))
    with contextlib.suppress(DatasetError):
        assert folder.read() is None or (table, key) not in (("annotations", "bbox"), ("images", "file_name"))
        return
    folder.problems()


@pytest.mark.parametrize("name", ["\x1b[31mcat", "cat\nERROR: x", "\u202etac", "\x9b2J"])
def test_names_that_steer_a_terminal(make, name):
    """In an id of a list, in a class, in a column."""
    folder = make("voc")
    for id in (name, f"{name} 1 2"):
        folder.files["list"].write_bytes(id.encode())
        assert folder.problems()
    folder.write(name=name.replace("\x1b", ""), bottom="50")
    assert folder.problems()
    folder = make("coco")
    folder.write(name=json.dumps(name)[1:-1], bottom="50")
    assert folder.problems()
    folder = make("yolo")
    folder.write(name=name, bottom="50")
    assert folder.problems()
    folder.write(id=name)
    assert folder.problems()


def test_mutated_files(make):
    generator = np.random.default_rng(0)
    pieces = [b"9" * 400, b"[" * 50, b"\\ud800", b"\x00", b"\xff", b"<a>", b"&#0;", b"nan", *(bytes([sign]) for sign in b'-{},"')]
    for layout in LAYOUTS:
        folder = make(layout)
        for place in FILES[layout]:
            whole = folder.files[place].read_bytes()
            for _ in range(examples(300)):
                content = bytearray(whole)
                start = int(generator.integers(len(content)))
                content[start : start + int(generator.integers(4))] = pieces[generator.integers(len(pieces))]
                folder.files[place].write_bytes(content)
                with contextlib.suppress(DatasetError):
                    folder.read()
            folder.files[place].write_bytes(whole)
