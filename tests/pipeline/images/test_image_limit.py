"""Large images: refused by their headers, however few bytes they are, and read where the user says so."""

import hashlib
import io
import struct
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.voc import read_split, split_files
from pipeline.datasets.voc_writing import AnnotatedImage, write_split
from pipeline.errors import DatasetError, PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS
from pipeline.images import reading as images
from pipeline.images.photographs import read_pixels
from pipeline.images.reading import decode_image, decode_photograph, read_image, upright_pixels


def png(width, height, rows=0):
    """A PNG of one channel that claims `height` rows and has the zeros of `rows`."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = zlib.compress(bytes(rows * (1 + width)))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def encoded(format, size=(40, 30)):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, format)
    return file.getvalue()


def claims(format, width, height):
    """A file of a few bytes that claims a size."""
    content = bytearray(encoded(format))
    if format == "PNG":
        return png(width, height)
    if format == "BMP":
        content[18:26] = struct.pack("<ii", width, height)
    elif format == "GIF":
        content[6:10] = struct.pack("<HH", width, height)
    elif format == "JPEG":
        place = content.index(b"\xff\xc0") + 5
        content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


SIZES = [(12_500, 12_500), (13_000, 13_000), (20_000, 20_000), (65_000, 60_000)]  # Pillow warns of the first, refuses the third


@pytest.fixture(autouse=True)
def little_memory():
    """No test takes memory for an image that is refused, and none lets Pillow warn."""
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    tracemalloc.stop()
    assert Image.MAX_IMAGE_PIXELS == 89_478_485  # Pillow's, for the rest of the program


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "JPEG"])
def test_more_than_the_limit_is_refused_by_its_header(format, size):
    with pytest.raises(PipelineError) as caught:
        decode_photograph("photo", claims(format, *size))
    assert str(caught.value) == (
        f"photo: {size[0]} x {size[1]} pixels are {size[0] * size[1] / 1e6:.4g} megapixels, more than the limit of 100; make it "
        "smaller, or raise --max-megapixels (in Python, max_megapixels)"
    )
    assert tracemalloc.get_traced_memory()[1] < 5e6
    with pytest.raises(PipelineError, match="more than the limit of 100;"):
        decode_image(Path("a.jpg"), claims(format, *size))


@pytest.mark.parametrize("limit", [100, 1e9])
def test_a_later_frame_of_any_size_is_an_animation(limit):
    """No frame is decoded to say so."""
    file = io.BytesIO()
    frames = [Image.fromarray(np.full((30, 40), grey, np.uint8)) for grey in (0, 99)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    content = bytearray(file.getvalue())
    place = content.rindex(b"\x2c") + 5  # the second image descriptor: left, top, width, height
    content[place : place + 4] = struct.pack("<HH", 60_000, 60_000)
    for decode in decode_image, decode_photograph:
        with pytest.raises(PipelineError, match=r"^a: an animation of 2 frames; save the one to look at as an image of its own$"):
            decode("a", bytes(content), limit)


@pytest.mark.parametrize("side", [100_000, 2**31 - 1])
def test_headers_of_absurd_sizes(side):
    with pytest.raises(PipelineError, match=rf"^a\.png: {side} x {side} pixels are .* megapixels, more than the limit of 100;"):
        decode_image(Path("a.png"), png(side, side))


def test_to_the_pixel():
    content = encoded("PNG")
    for decode in decode_image, decode_photograph:
        assert decode(Path("a.png"), content, 1200 / 1e6).shape == (30, 40, 3)
        with pytest.raises(PipelineError, match=r"^a\.png: 40 x 30 pixels are 0\.0012 megapixels, more than .* 0\.0011;"):
            decode(Path("a.png"), content, 0.0011)


@pytest.mark.parametrize("side", [9500, 14_000])
def test_a_higher_limit_is_beyond_pillows_too(side):
    """The rows that are there are read; the others are not, so that it is broken and not too large."""
    for limit in (side * side / 1e6, 1e9):
        with pytest.raises(PipelineError, match=r"^a\.png: broken image data \("):
            decode_photograph("a.png", png(side, side), limit)


def test_a_file_within_the_limit_is_read_without_a_word():
    assert decode_photograph("a.png", png(10_000, 9_000, 9_000)).shape == (9_000, 10_000, 3)


def test_of_indexed_images_the_index_has_told(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    monkeypatch.setattr(images, "MAX_MEGAPIXELS", 0.001)
    with pytest.raises(PipelineError, match=r"more than the limit of 0\.001;"):
        read_image(path)
    assert read_image(path, hashlib.sha256(path.read_bytes()).hexdigest()).shape == (30, 40, 3)


def test_in_a_data_set(tmp_path):
    pixels = np.zeros((30, 40, 3), np.uint8)
    write_split(tmp_path, "train", [AnnotatedImage(id, pixels, [[0, 0, 5, 5]], ["cat"], [False]) for id in "ab"])
    (tmp_path / "JPEGImages/b.jpg").rename(tmp_path / "JPEGImages/b.jpeg")
    (tmp_path / "JPEGImages/b.jpeg").write_bytes(claims("JPEG", 13_000, 13_000))
    digests = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in split_files(tmp_path, "train")}
    with pytest.raises(DatasetError) as caught:
        read_split(tmp_path, "train", None, digests)
    assert caught.value.problems[0].startswith(f"{tmp_path}/JPEGImages/b.jpeg: 13000 x 13000 pixels are 169 megapixels, more")
    with pytest.raises(DatasetError) as caught:
        read_split(tmp_path, "train", None, digests, max_megapixels=0.001)
    (problem,) = caught.value.problems
    assert problem.startswith("2 images that cannot be used; make it smaller, or raise --max-megapixels")
    assert problem.count("more than the limit of 0.001") == caught.value.count == 2


def test_images_of_pillow(tmp_path):
    image = Image.new("RGB", (40, 30))
    assert upright_pixels(image).shape == (30, 40, 3)
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    for given in (image, tmp_path / "a.png", str(tmp_path / "a.png")):
        assert read_pixels(given).shape == (30, 40, 3)
        with pytest.raises(PipelineError, match=r": 40 x 30 pixels are 0\.0012 megapixels, more than the limit of 0\.001;"):
            read_pixels(given, 0.001)


def test_threads_leave_pillows_limit_as_it_was():
    def decode():
        for _ in range(50):
            decode_photograph("a", content)

    content = encoded("PNG")
    threads = [threading.Thread(target=decode) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_usual_limit():
    assert MAX_MEGAPIXELS == 100
