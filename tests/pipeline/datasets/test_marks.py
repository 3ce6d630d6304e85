"""Images with a mark of rotation (EXIF's orientation): told, and read as the user says that their boxes count."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.records import ImageRecord, ImageTable
from pipeline.errors import PipelineError
from pipeline.images.reading import ImageCache, decode_photograph, read_record, upright_pixels
from tests.pipeline.datasets.layouts import HEIGHT, LAYOUTS, WIDTH, Item, Voc, counts_of, encoded, pixels_of, problems, read

MARKED = "images with a mark of rotation (EXIF)"
UPRIGHT = pixels_of()
# The stored pixels of each orientation: what NumPy, and not Pillow, makes of the picture that is looked at.
STORED = {
    2: UPRIGHT[:, ::-1], 3: UPRIGHT[::-1, ::-1], 4: UPRIGHT[::-1], 5: UPRIGHT.transpose(1, 0, 2), 6: np.rot90(UPRIGHT),
    7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(UPRIGHT, -1),
}
BOX = "cat", 2, 3, WIDTH - 2, HEIGHT - 1


def marked(orientation, size=None, format="PNG"):
    return Item(1, encoded(STORED[orientation], format, orientation), (BOX,), size)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [None, (WIDTH, HEIGHT), (HEIGHT, WIDTH), (0, 0)])
@pytest.mark.parametrize("orientation", [6, 3, *(pytest.param(mark, marks=pytest.mark.exhaustive) for mark in (2, 4, 5, 7, 8))])
def test_told_as_the_only_fault_whatever_the_annotated_size(tmp_path, layout, size, orientation):
    """The advice depends on the tool that drew the boxes; a corrected size would move them to other pixels."""
    layout(tmp_path, marked(orientation, size))
    (problem,) = problems(tmp_path)
    assert f"1.jpg: has the mark of rotation (EXIF orientation) {orientation}; if the boxes were drawn on the image as" in problem
    assert "--exif upright" in problem
    assert "--exif stored" in problem
    assert "correct" not in problem


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("orientation", [3, 6, *(pytest.param(mark, marks=pytest.mark.exhaustive) for mark in (2, 4, 5, 7, 8))])
def test_upright(tmp_path, layout, orientation):
    # The size of a program that did not look at the mark is accepted: the user has said what the boxes count.
    for size in (None, (WIDTH, HEIGHT), STORED[orientation].shape[1::-1]):
        layout(tmp_path, marked(orientation, size))
        split = read(tmp_path, exif="upright")
        (record,) = split.images
        assert (record.width, record.height, record.orientation) == (WIDTH, HEIGHT, orientation)
        assert record.boxes.tolist() == [[2, 3, WIDTH - 2, HEIGHT - 1]]
        np.testing.assert_array_equal(read_record(tmp_path, record), UPRIGHT)
        np.testing.assert_array_equal(ImageCache(tmp_path, 1).read(record), UPRIGHT)
        assert counts_of(split.notes) == [(MARKED, 1)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stored(tmp_path, layout):
    layout(tmp_path, Item(1, encoded(STORED[3], orientation=3), (BOX,)), Item(2, encoded(STORED[4], orientation=4)))
    split = read(tmp_path, exif="stored")
    assert counts_of(split.notes) == [(MARKED, 2)]
    assert [record.orientation for record in split.images] == [1, 1]
    np.testing.assert_array_equal(read_record(tmp_path, split.images[0]), STORED[3])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stored_contradicts_a_size_that_is_the_upright_one(tmp_path, layout):
    layout(tmp_path, Item(1, encoded(STORED[6], orientation=6), size=(WIDTH, HEIGHT)))
    (problem,) = problems(tmp_path, exif="stored")
    assert f"is {WIDTH} x {HEIGHT}, the image is {HEIGHT} x {WIDTH} as stored; its boxes were drawn on the image as" in problem
    assert "give --exif upright" in problem


def test_a_size_that_is_neither_is_an_error(tmp_path):
    Voc(tmp_path, marked(6, (WIDTH, HEIGHT + 1)))
    for exif in ("upright", "stored"):
        assert f"is {WIDTH} x {HEIGHT + 1}, the image is" in problems(tmp_path, exif=exif)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pixels_that_were_turned_without_their_boxes(tmp_path, layout):
    layout(tmp_path, Item(1, encoded(UPRIGHT), size=(HEIGHT, WIDTH)))
    (problem,) = problems(tmp_path)
    assert f"is {HEIGHT} x {WIDTH}, the image is {WIDTH} x {HEIGHT}: turned by a quarter; put there the image that was" in problem
    assert "only if the boxes are right on this one" in problem


@pytest.mark.parametrize("mark", [0, 1, 9, 255])
def test_marks_that_turn_nothing(tmp_path, mark):
    Voc(tmp_path, Item(1, encoded(UPRIGHT, orientation=mark)))
    assert read(tmp_path).notes == ()


@pytest.mark.parametrize(("format", "options"), [("JPEG", {}), ("WEBP", {"lossless": True}), ("MPO", {"save_all": True})])
def test_of_each_format(tmp_path, format, options):
    Voc(tmp_path, Item(1, encoded(STORED[6], format, 6, **options)))
    assert "EXIF orientation) 6" in problems(tmp_path)[0]
    (record,) = read(tmp_path, exif="upright").images
    looked_at = decode_photograph("1.jpg", (tmp_path / record.path).read_bytes())
    assert looked_at.shape == UPRIGHT.shape
    np.testing.assert_array_equal(read_record(tmp_path, record), looked_at)


def test_many_are_one_line(tmp_path):
    Voc(tmp_path, *(Item(number, encoded(pixels_of(number), orientation=8)) for number in range(9)))
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"9 {MARKED}; if the boxes")
    assert problem.count("EXIF orientation) 8") == 3
    assert counts_of(read(tmp_path, exif="upright").notes) == [(MARKED, 9)]


def test_damaged_exif_is_no_mark(tmp_path, recwarn):
    content = encoded(UPRIGHT, "JPEG", 6)
    start = content.index(b"Exif\0\0") + 6
    Voc(tmp_path, Item(1, content[:start] + b"\xff" * 12 + content[start + 12:]))
    assert read(tmp_path).images[0].orientation == 1
    assert not recwarn.list


def test_broken_pixels_are_told_and_not_the_mark(tmp_path):
    Voc(tmp_path, Item(1, encoded(STORED[6], "JPEG", 6)[:-200]))
    (problem,) = problems(tmp_path, exif="upright")
    assert "1.jpg: broken image data (" in problem


def test_unknown_rule(tmp_path):
    Voc(tmp_path, marked(6))
    with pytest.raises(PipelineError, match="exif is 'auto'; expected one of error, upright, stored"):
        read(tmp_path, exif="auto")


class TestRecord:
    """The mark is in the bytes and keys of those images that are turned, and of no others."""

    @staticmethod
    def record(**values):
        objects = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
        return ImageRecord("a", "a.jpg", "ab", 4, 3, *objects, **values)

    def test_json(self):
        plain, turned = self.record(), self.record(orientation=6)
        assert "orientation" not in plain.to_json()
        assert turned.to_json() == plain.to_json() | {"orientation": 6}
        assert [ImageRecord.from_json(record.to_json()).orientation for record in (plain, turned)] == [1, 6]
        assert [record.orientation for record in ImageTable([plain, turned, plain])] == [1, 6, 1]

    def test_key(self):
        assert self.record().pixels_key() == {"digest": "ab"}
        assert self.record(orientation=3).pixels_key() == {"digest": "ab", "orientation": 3}


def test_a_picture_of_pillow_is_turned_too():
    with Image.open(io.BytesIO(encoded(STORED[5], orientation=5))) as image:
        np.testing.assert_array_equal(upright_pixels(image), UPRIGHT)
