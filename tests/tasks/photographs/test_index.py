"""Which images `--images` names, and what identifies them."""

import os

import luigi
import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.images.reading import ChangedFile
from tasks.engine import digests
from tasks.engine.digests import MISSING
from tasks.photographs.detect import DetectImages
from tasks.photographs.index import DRAWN_AS, IRREGULAR, IndexImages, find_images, picture_names


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working directory, which contains a folder `photos`."""
    for name in ("b.JPG", "a/b.jpg", "a/c/b.png", "notes.txt", ".hidden.jpg", ".thumbnails/b.jpg", "a/photo[1].heic"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    luigi.task_register.Register.clear_instance_cache()
    yield tmp_path / "photos"
    luigi.task_register.Register.clear_instance_cache()


@pytest.mark.parametrize(("text", "names"), [
    ("photos", ["a/b.jpg", "a/c/b.png", "a/photo[1].heic", "b.JPG"]), ("photos/a/", ["b.jpg", "c/b.png", "photo[1].heic"]),
    ("photos/a/b.jpg", ["b.jpg"]), ("photos/a/photo[1].heic", ["photo[1].heic"]), ("photos/notes.txt", ["notes.txt"]),
    ("photos/*", ["a/b.jpg", "a/c/b.png", "a/photo[1].heic", "b.JPG"]), ("photos/*/b.jpg", ["a/b.jpg"]),
    ("photos/**/b.*", ["a/b.jpg", "a/c/b.png", "b.JPG"]), ("*/a/../b.JPG", ["photos/b.JPG"]),
])
def test_folder_file_or_pattern(folder, text, names):
    for prefix in ("", f"{folder.parent}/"):
        images = find_images(prefix + text)
        assert list(images) == names
        assert all(path.is_file() for path in images.values())


def test_what_is_there_and_cannot_be_read_is_not_passed_over(folder):
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "link.jpg").symlink_to("pipe.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    open(os.fsencode(folder) + b"/\xff.jpg", "wb").close()
    names = {"gone.jpg", "pipe.jpg", "link.jpg", "device.jpg", "\\udcff.jpg"}
    assert set(find_images("photos")) == {"a/b.jpg", "a/c/b.png", "a/photo[1].heic", "b.JPG"} | names
    digests = IndexImages(images="photos", cache_dir=str(folder.parent / "cache")).digests()  # neither waits nor reads for ever
    assert {name for name, digest in digests.items() if digest == IRREGULAR} == {"pipe.jpg", "link.jpg", "device.jpg"}
    assert digests["gone.jpg"] == MISSING


@pytest.mark.parametrize(("text", "message"), [
    ("", "--images is missing; give a folder, an image, or a pattern in quotes such as 'photos/\\*.jpg'"),
    ("nowhere", "--images nowhere: no file there; "), ("photos/*.gif", r"--images photos/\*.gif: no file there; "),
    ("photos/*.txt", r"--images photos/\*.txt: no image among 1 file\(s\); expected .jpg, .jpeg, .png, "),
    ("photos/a/*/../../b.JPG", r"--images: photos/a/c/../../b.JPG is not below photos/a; write a pattern without '..' after"),
])
def test_no_image_is_an_error(text, message):
    with pytest.raises(PipelineError, match=f"^{message}"):
        find_images(text)


def test_an_empty_folder_and_one_that_cannot_be_read(folder, monkeypatch):
    (folder / "empty").mkdir()
    with pytest.raises(PipelineError, match=r"^--images photos/empty: no file there"):
        find_images("photos/empty")

    def scandir(path):  # permissions do not keep an administrator, who may run the tests, from anything
        raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PipelineError, match=r"^--images: folder photos cannot be read \(Permission denied\)"):
        find_images("photos")


LATIN = os.fsdecode(b"caf\xe9.jpg")


@pytest.mark.parametrize("text", ["photos/latin", f"photos/latin/{LATIN}", "photos/latin/*.jpg", os.fsdecode(b"photos/\xe9")])
def test_a_name_that_is_no_text_becomes_one(folder, text):
    for name in ("latin", os.fsdecode(b"\xe9")):
        (folder / name).mkdir()
        (folder / name / LATIN).touch()
    (name, path), = find_images(text).items()
    assert name == "caf\\udce9.jpg"
    assert path.is_file()


def test_no_two_files_have_one_name(folder):
    for name in (LATIN, "caf\\udce9.jpg", "caf\\udce9-2.jpg"):
        (folder / "a" / "c" / name).write_text(name.encode(errors="backslashreplace").decode())
    images = find_images("photos/a/c")
    assert list(images) == ["b.png", "caf\\udce9-2.jpg", "caf\\udce9-3.jpg", "caf\\udce9.jpg"]
    assert images["caf\\udce9-3.jpg"].name == LATIN
    assert len(set(images.values())) == 4


class TestPictureNames:
    def test_are_the_images_own(self):
        names = ["a/b.jpg", "b.JPG", "c.webp", "x" * 251 + ".png", "\udce9".encode(errors="backslashreplace").decode() + ".gif"]
        assert picture_names(names) == names

    def test_another_suffix_has_one_of_pictures_added(self):
        assert picture_names(["scan.tif", "notes"]) == ["scan.tif.jpg", "notes.jpg"]

    @pytest.mark.parametrize(("names", "expected"), [
        (["a.tif", "a.tif.jpg"], ["a.tif-2.jpg", "a.tif.jpg"]),
        (["a.tif", "a.tif.jpg/b.png"], ["a.tif-2.jpg", "a.tif.jpg/b.png"]),
        (["a.tif", "a.tif-2.jpg", "a.tif.jpg"], ["a.tif-3.jpg", "a.tif-2.jpg", "a.tif.jpg"]),
    ])
    def test_none_is_that_of_another_image_or_of_a_folder(self, names, expected):
        assert picture_names(names) == expected

    @pytest.mark.parametrize("name", ["x" * 252 + ".tif", "\\udce9" * 200 + ".jpg", "é" * 200 + ".png", "/".join(["x" * 99] * 9)])
    def test_a_file_can_have_them(self, tmp_path, name):
        first, second = picture_names([name, f"a/{name}"])
        for picture in (first, second):
            path = tmp_path / picture
            path.parent.mkdir(exist_ok=True)
            path.touch()
        assert first != second
        assert os.path.splitext(first)[1] in DRAWN_AS


class TestKey:
    def key(self, images, tmp_path):
        luigi.task_register.Register.clear_instance_cache()
        return IndexImages(images=images, cache_dir=str(tmp_path / "cache")).key

    def test_is_of_names_and_contents(self, folder, tmp_path):
        key = self.key("photos", tmp_path)
        assert self.key("photos/*", tmp_path) == key
        folder.rename(tmp_path / "moved")
        os.utime(tmp_path / "moved" / "b.JPG")
        assert self.key("moved", tmp_path) == key
        (tmp_path / "moved" / "b.JPG").rename(tmp_path / "moved" / "d.jpg")
        renamed = self.key("moved", tmp_path)
        (tmp_path / "moved" / "d.jpg").write_text("other")
        assert len({key, renamed, self.key("moved", tmp_path)}) == 3

    def test_tells_a_file_that_may_not_be_read_though_it_is_remembered(self, folder, tmp_path, monkeypatch):
        monkeypatch.setattr(digests, "SETTLED_SECONDS", -1)  # no waiting until the file may be remembered
        key = self.key("photos", tmp_path)
        monkeypatch.setattr(os, "access", lambda path, mode: os.path.basename(path) != "b.JPG")
        assert self.key("photos", tmp_path) != key
        assert IndexImages(images="photos", cache_dir=str(tmp_path / "cache")).digests()["b.JPG"] == MISSING


class TestVideos:
    @pytest.fixture
    def clip(self, folder):
        av = pytest.importorskip("av")
        with av.open(str(folder / "a" / "clip.MP4"), "w", format="mp4") as container:
            stream = container.add_stream("mpeg4", rate=5)
            stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
            for number in range(7):
                pixels = np.full((16, 32, 3), 30 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        return folder / "a" / "clip.MP4"

    def index(self, folder, **settings):
        luigi.task_register.Register.clear_instance_cache()
        return IndexImages(cache_dir=str(folder.parent / "cache"), **{"images": "photos", **settings})

    def test_are_left_out_and_in_no_key_unless_asked_for(self, folder, clip):
        with_video = self.index(folder).key
        assert [self.index(folder, every=every).key == with_video for every in (0, 3)] == [True, False]
        clip.unlink()
        assert {self.index(folder, every=every).key for every in (0, 1, 3)} == {with_video}

    def test_every_third_frame(self, folder, clip):
        records = self.index(folder, images="photos/a/clip.MP4", every=3).records()
        assert [record.id for record in records] == [f"clip.MP4/{number:06d}.jpg" for number in (0, 3, 6)]
        assert {record.path for record in records} == {"clip.MP4"}
        assert len({record.digest for record in records}) == 3
        names = [record.id for record in self.index(folder, every=3).records()]
        assert [name for name in names if "clip" in name] == [f"a/clip.MP4/{number:06d}.jpg" for number in (0, 3, 6)]

    def test_pixels_are_those_of_the_frame(self, folder, clip):
        settings = {"images": str(clip), "cache_dir": str(folder.parent / "cache"), "detector": "none"}
        task = DetectImages(every=3, **settings)
        records = self.index(folder, images=str(clip), every=3).records()
        assert [round(float(task.read(record)[..., 1].mean()) / 30) for record in records] == [0, 3, 6]
        clip.write_bytes(clip.read_bytes() + b"0")
        with pytest.raises(ChangedFile, match="changed since it was indexed"):
            task.read(records[0])

    def test_a_damaged_one_is_told_of(self, folder, clip):
        clip.write_text("none")
        (record,) = self.index(folder, images=str(clip), every=3).records()
        assert record.id == "clip.MP4"
        error = DetectImages(images=str(clip), every=3, cache_dir=str(folder.parent / "cache"), detector="none").read(record)
        assert str(error).startswith("photograph: not a video that can be read")

    def test_alone_and_not_asked_for_is_an_error(self, folder, clip):
        with pytest.raises(PipelineError, match=r"; to detect in videos, add --every 10$"):
            find_images("photos/a/*.MP4")
