"""Reading images: what becomes of each pixel mode, what is refused and how, and what the cache keeps."""

import contextlib
import hashlib
import io
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import PipelineError
from pipeline.images import reading as images
from pipeline.images.reading import ImageCache, decode_image, decode_photograph, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)


def png(bit_depth, colour_type, row_bytes, height=4, width=4):
    """A PNG of zeros, for the kinds that Pillow does not write."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    data = zlib.compress(bytes(height * (1 + row_bytes)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(path, image, **options):
    image.save(path, **options)
    return path


def refusal(path, *arguments):
    with pytest.raises(PipelineError) as caught:
        read_image(path, *arguments)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


class TestReadImage:
    @pytest.mark.parametrize("suffix", ["png", "bmp", "PNG"])
    def test_lossless_formats_give_the_pixels_that_were_saved(self, tmp_path, suffix):
        pixels = read_image(saved(tmp_path / f"image.{suffix}", Image.fromarray(PIXELS)))
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, PIXELS)

    @pytest.mark.parametrize("suffix", ["jpg", "jpeg", "JPG"])
    def test_jpeg_is_rgb_in_that_order(self, tmp_path, suffix):
        red = np.zeros((16, 16, 3), np.uint8) + np.uint8([250, 10, 10])
        pixels = read_image(saved(tmp_path / f"image.{suffix}", Image.fromarray(red), quality=100, subsampling=0))
        assert np.abs(pixels.astype(int) - red).max() <= 2

    @pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
    def test_grey_palette_and_alpha_become_rgb(self, tmp_path, mode):
        image = Image.fromarray(PIXELS).convert(mode)
        pixels = read_image(saved(tmp_path / "image.png", image))
        assert pixels.shape == PIXELS.shape
        values = np.asarray(image)
        expected = {
            "1": lambda: np.stack([values * np.uint8(255)] * 3, axis=2), "L": lambda: np.stack([values] * 3, axis=2),
            "P": lambda: np.reshape(image.getpalette(), (-1, 3))[values], "LA": lambda: np.stack([values[..., 0]] * 3, axis=2),
            "RGBA": lambda: values[..., :3],
        }[mode]()
        np.testing.assert_array_equal(pixels, expected)

    def test_alpha_is_dropped_not_blended(self, tmp_path):
        transparent = np.dstack([PIXELS, np.zeros(PIXELS.shape[:2], np.uint8)])
        np.testing.assert_array_equal(read_image(saved(tmp_path / "image.png", Image.fromarray(transparent))), PIXELS)

    def test_pixels_stay_as_stored_whatever_exif_says(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: rotate by 90 degrees to look at it
        path = saved(tmp_path / "image.jpg", Image.fromarray(PIXELS), exif=exif)
        assert Image.open(path).getexif()[0x0112] == 6
        assert read_image(path).shape == PIXELS.shape

    def test_digest_of_the_file_as_indexed_is_accepted_in_a_string_path_too(self, tmp_path):
        path = saved(tmp_path / "image.png", Image.fromarray(PIXELS))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        np.testing.assert_array_equal(read_image(str(path), digest), PIXELS)

    def test_a_changed_file_is_refused(self, tmp_path):
        path = saved(tmp_path / "image.png", Image.fromarray(PIXELS))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        saved(path, Image.fromarray(255 - PIXELS))
        assert refusal(path, digest) == "changed since it was indexed; run again, so that it is indexed anew"

    def test_a_missing_file_is_refused(self, tmp_path):
        assert refusal(tmp_path / "none.jpg").startswith("cannot be read (No such file or directory)")

    def test_a_folder_is_refused(self, tmp_path):
        (tmp_path / "folder.jpg").mkdir()
        assert refusal(tmp_path / "folder.jpg").startswith("cannot be read (Is a directory)")

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
    def test_what_is_no_image_is_refused(self, tmp_path, content):
        path = tmp_path / "image.png"
        path.write_bytes(content)
        assert refusal(path).startswith("not a readable image (")

    @pytest.mark.parametrize(("suffix", "format"), [("jpg", "PNG"), ("png", "BMP"), ("dat", "WEBP")])
    def test_the_content_and_not_the_suffix_says_the_format(self, tmp_path, suffix, format):
        path = saved(tmp_path / f"image.{suffix}", Image.fromarray(PIXELS), format=format, lossless=True)
        np.testing.assert_array_equal(read_image(path), PIXELS)

    def test_tiff_is_none_of_the_formats(self, tmp_path):
        path = saved(tmp_path / "image.tif", Image.fromarray(PIXELS))
        assert refusal(path) == "not a readable image (none of JPEG, PNG, BMP, WEBP, GIF); replace it or leave it out"

    @pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
    @pytest.mark.parametrize("share", [0.5, 0.98])
    def test_a_truncated_file_is_refused(self, tmp_path, suffix, share):
        noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
        path = saved(tmp_path / f"image.{suffix}", Image.fromarray(noise))
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        assert refusal(path).startswith("broken image data (")

    def test_damage_anywhere_is_an_image_or_a_refusal(self, tmp_path):
        generator = np.random.default_rng(0)
        for suffix in ("jpg", "png", "bmp"):
            whole = saved(tmp_path / f"image.{suffix}", Image.fromarray(PIXELS)).read_bytes()
            for place in generator.integers(0, min(len(whole), 200), 150):
                content = bytearray(whole)
                content[place] ^= 1 << int(generator.integers(8))
                path = tmp_path / f"damaged.{suffix}"
                path.write_bytes(content)
                with contextlib.suppress(PipelineError):
                    assert read_image(path).dtype == np.uint8

    def test_cmyk_is_refused(self, tmp_path):
        path = saved(tmp_path / "image.jpg", Image.fromarray(PIXELS).convert("CMYK"))
        assert refusal(path) == "pixel mode CMYK is not supported; convert it to 8-bit RGB"

    def test_16_bit_grey_is_refused(self, tmp_path):
        path = saved(tmp_path / "image.png", Image.fromarray(np.zeros((4, 4), np.uint16)))
        assert refusal(path).startswith("pixel mode I;16")

    @pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
    def test_16_bit_png_of_every_kind_is_refused(self, tmp_path, colour_type, channels):
        path = tmp_path / "image.png"
        path.write_bytes(png(8, colour_type, 4 * channels))
        assert read_image(path).shape == (4, 4, 3)
        path.write_bytes(png(16, colour_type, 8 * channels))
        assert "16" in refusal(path)
        assert refusal(path).endswith("is not supported; convert it to 8-bit RGB")



class TestPhotographs:
    """What a user hands to a detector: any suffix, upright, one picture."""

    @staticmethod
    def encoded(image, format, **options):
        file = io.BytesIO()
        image.save(file, format, **options)
        return file.getvalue()

    def refusal(self, content):
        with pytest.raises(PipelineError) as caught:
            decode_photograph("photo.jpg", content)
        return str(caught.value).removeprefix("photo.jpg: ")

    @pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
    def test_format_is_that_of_the_content(self, format, options):
        pixels = decode_photograph("photo.jpg", self.encoded(Image.fromarray(PIXELS), format, **options))
        np.testing.assert_array_equal(pixels, PIXELS)

    @pytest.mark.parametrize(("orientation", "stored"), [
        (1, PIXELS), (2, PIXELS[:, ::-1]), (3, PIXELS[::-1, ::-1]), (4, PIXELS[::-1]), (5, PIXELS.transpose(1, 0, 2)),
        (6, np.rot90(PIXELS)), (7, PIXELS[::-1, ::-1].transpose(1, 0, 2)), (8, np.rot90(PIXELS, -1)), (9, PIXELS),
    ])
    def test_turned_as_exif_says(self, orientation, stored):
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = self.encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
        np.testing.assert_array_equal(decode_photograph("photo.jpg", content), PIXELS)

    @pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
    def test_animations_are_refused_and_stills_are_not(self, format):
        frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
        content = self.encoded(frames[0], format, save_all=True, append_images=frames[1:])
        assert self.refusal(content) == "an animation of 2 frames; save the one to look at as an image of its own"
        assert decode_photograph("photo.jpg", self.encoded(frames[0], format)).shape == PIXELS.shape

    def test_of_a_phones_two_pictures_the_first_counts(self):
        images = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (200, 0)]
        content = self.encoded(images[0], "MPO", save_all=True, append_images=images[1:])
        assert (decode_photograph("photo.jpg", content) == 200).all()

    def test_what_is_refused_of_data_sets_is_refused_here(self):
        image = Image.fromarray(PIXELS)
        assert self.refusal(self.encoded(image.convert("CMYK"), "JPEG")).startswith("pixel mode CMYK is not supported")
        assert self.refusal(png(16, 2, 24)).startswith("16-bit RGB is not supported")
        assert self.refusal(self.encoded(image, "PNG")[:-30]).startswith("broken image data (")

    @pytest.mark.parametrize("content", [b"", b"hello"])
    def test_what_is_no_image_is_told_of_in_the_same_words_each_time(self, content):
        expected = "not a readable image (none of JPEG, PNG, BMP, WEBP, GIF); replace it or leave it out"
        assert self.refusal(content) == expected

    @pytest.mark.filterwarnings("error")
    def test_damage_anywhere_is_an_image_or_a_refusal(self):
        generator = np.random.default_rng(0)
        exif = Image.Exif()
        exif[0x0112] = 6
        for format in ("JPEG", "PNG", "GIF", "WEBP", "MPO"):
            options = {"save_all": True, "append_images": [Image.fromarray(PIXELS)]} if format == "MPO" else {}
            whole = self.encoded(Image.fromarray(PIXELS), format, exif=exif, **options)
            for place in generator.integers(0, min(len(whole), 300), 100):
                content = bytearray(whole)
                content[place] ^= 1 << int(generator.integers(8))
                with contextlib.suppress(PipelineError):
                    assert decode_photograph("photo", bytes(content)).dtype == np.uint8


class TestOfDataSets:
    """A data set's images are those that a detector reads, as stored or turned as the index says."""

    encoded = staticmethod(TestPhotographs.encoded)

    @pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
    def test_animations_are_refused(self, format):
        frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
        content = self.encoded(frames[0], format, save_all=True, append_images=frames[1:])
        with pytest.raises(PipelineError, match=r"^a: an animation of 2 frames; save the one to look at"):
            decode_image("a", content)
        assert decode_image("a", self.encoded(frames[0], format)).shape == PIXELS.shape

    @pytest.mark.parametrize("number", [2, 3])
    def test_of_a_phones_pictures_the_first_counts(self, number):
        images = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (200, 0, 90)]
        content = self.encoded(images[0], "MPO", save_all=True, append_images=images[1:number])
        assert Image.open(io.BytesIO(content)).format == "MPO"
        assert (decode_image("a.jpg", content) == 200).all()

    @pytest.mark.filterwarnings("error")
    def test_a_phones_second_picture_may_be_cut_off(self):
        images = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (200, 0)]
        content = self.encoded(images[0], "MPO", save_all=True, append_images=images[1:])
        second = content.rindex(b"\xff\xd8\xff")
        for kept in (second, second + 1, second + 40):
            assert (decode_image("a.jpg", content[:kept]) == 200).all()
            assert (decode_photograph("a.jpg", content[:kept]) == 200).all()

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_turned_as_the_index_says_and_not_as_the_file(self, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(PIXELS)
        expected = decode_photograph("a", self.encoded(image, "PNG", exif=exif))
        np.testing.assert_array_equal(decode_image("a", self.encoded(image, "PNG"), orientation=orientation), expected)
        np.testing.assert_array_equal(decode_image("a", self.encoded(image, "PNG", exif=exif)), PIXELS)

    def test_the_cache_keeps_both_ways(self, tmp_path):
        path = saved(tmp_path / "a.png", Image.fromarray(PIXELS))
        digest, cache = hashlib.sha256(path.read_bytes()).hexdigest(), ImageCache(tmp_path, 1)
        for orientation in (1, 6, 1):
            record = SimpleNamespace(path="a.png", digest=digest, orientation=orientation)
            np.testing.assert_array_equal(cache.read(record), np.rot90(PIXELS, -1) if orientation == 6 else PIXELS)


class TestImageCache:
    SIDES = 10, 20, 30, 40

    @pytest.fixture
    def records(self, tmp_path):
        records = []
        for number, side in enumerate(self.SIDES):
            path = saved(tmp_path / f"{number}.png", Image.fromarray(np.full((side, side, 3), number, np.uint8)))
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            records.append(SimpleNamespace(path=path.name, digest=digest, orientation=1))
        return records

    @pytest.fixture
    def reads(self, monkeypatch):
        """The names of the files that were read from disk, in order."""
        names = []

        def counting(path, *rest):
            names.append(path.name)
            return read_image(path, *rest)

        monkeypatch.setattr(images, "read_image", counting)
        return names

    def test_the_least_recently_used_goes_first(self, tmp_path, records, reads):
        cache = ImageCache(tmp_path, 3 * (10**2 + 20**2 + 30**2 - 1) / 2**20)  # a byte short of the first three
        for number in (0, 1, 0, 2):
            cache.read(records[number])
        assert reads == ["0.png", "1.png", "2.png"]
        cache.read(records[0])
        cache.read(records[2])
        assert reads == ["0.png", "1.png", "2.png"]
        cache.read(records[1])
        assert reads == ["0.png", "1.png", "2.png", "1.png"]

    def test_keeps_what_fits_to_the_byte(self, tmp_path, records, reads):
        cache = ImageCache(tmp_path, 3 * (10**2 + 20**2 + 30**2) / 2**20)
        for number in (0, 1, 2, 0, 1, 2):
            cache.read(records[number])
        assert reads == ["0.png", "1.png", "2.png"]

    def test_a_file_of_another_digest_is_read_anew(self, tmp_path, records):
        cache = ImageCache(tmp_path, 1)
        cache.read(records[0])
        path = saved(tmp_path / records[0].path, Image.fromarray(np.full((5, 5, 3), 9, np.uint8)))
        records[0].digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert cache.read(records[0]).tolist() == np.full((5, 5, 3), 9).tolist()

    def test_reads_as_a_slow_cache_does(self, tmp_path, records, reads):
        capacity = 3 * 1800
        cache = ImageCache(tmp_path, capacity / 2**20)
        recent, expected = [], []
        for number in np.random.default_rng(0).integers(0, 4, 200).tolist():
            pixels = cache.read(records[number])
            assert (pixels == number).all()
            assert pixels.shape == (self.SIDES[number],) * 2 + (3,)
            if number in recent:
                recent.remove(number)
            else:
                expected.append(f"{number}.png")
            recent.append(number)
            while sum(3 * self.SIDES[kept] ** 2 for kept in recent) > capacity:
                recent.pop(0)
            assert reads == expected

    def test_serves_an_image_larger_than_the_capacity(self, tmp_path, records, reads):
        cache = ImageCache(tmp_path, 0)
        for number in (3, 3, 0, 3):
            assert (cache.read(records[number]) == number).all()
        assert reads == ["3.png", "0.png", "3.png"]  # the last one used is at hand in any case

    def test_checks_the_digest(self, tmp_path, records):
        saved(tmp_path / "1.png", Image.fromarray(PIXELS))
        with pytest.raises(PipelineError, match=r"1\.png: changed since it was indexed"):
            ImageCache(tmp_path, 1).read(records[1])

    def test_what_is_kept_cannot_be_written_to(self, tmp_path, records):
        with pytest.raises(ValueError, match="read-only"):
            ImageCache(tmp_path, 1).read(records[1])[0, 0] = 7
