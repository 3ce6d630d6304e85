"""Unpacking VOC's archives, on tiny ones."""

import io
import tarfile
from urllib.parse import urlsplit

import pytest

from pipeline.datasets.voc_archives import DATA_SETS, URL, archives_of, unpack
from pipeline.errors import PipelineError

LIST = "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt"
IMAGE = "VOCdevkit/VOC2007/JPEGImages/000001.jpg"


@pytest.fixture
def archive(tmp_path):
    """archive(*members) -> the path of a tar file; a member is (name, content) or (name, type, where it links to)."""

    def make(*members, name="voc.tar"):
        with tarfile.open(tmp_path / name, "w") as tar:
            for member, *rest in members:
                info = tarfile.TarInfo(member)
                if len(rest) == 2:
                    info.type, info.linkname = rest
                    tar.addfile(info)
                else:
                    info.size = len(rest[0])
                    info.mode = 0
                    tar.addfile(info, io.BytesIO(rest[0]))
        return tmp_path / name

    return make


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_detection_needs_is_written_and_the_rest_left(tmp_path, archive):
    unpack(archive(
        ("VOCdevkit", tarfile.DIRTYPE, ""), ("VOCdevkit/VOC2007/Annotations/000001.xml", b"<annotation/>"), (IMAGE, b"jpeg"),
        (LIST, b"000001\n"), ("VOCdevkit/VOC2007/ImageSets/Layout/test.txt", b"1"),
        ("VOCdevkit/VOC2007/SegmentationClass/1.png", b"1"),
        ("VOCdevkit/create_segmentations.m", b"code"), ("./VOCdevkit/VOC2007/JPEGImages/000002.jpg", b"another"),
    ), tmp_path / "voc")
    assert files_of(tmp_path / "voc") == {
        "Annotations/000001.xml": b"<annotation/>", "JPEGImages/000001.jpg": b"jpeg", "JPEGImages/000002.jpg": b"another",
        "ImageSets/Main/trainval.txt": b"000001\n",
    }


def test_several_archives_are_one_data_set_with_joined_lists(tmp_path, archive):
    unpack(archive((IMAGE, b"jpeg"), (LIST, b"000001\n")), tmp_path / "voc")
    second = archive((IMAGE.replace("000001", "2008_000002"), b"another"), (LIST.replace("2007", "2012"), b"2008_000002\n"))
    unpack(second, tmp_path / "voc")
    found = files_of(tmp_path / "voc")
    assert found["ImageSets/Main/trainval.txt"] == b"000001\n2008_000002\n"
    assert found["JPEGImages/000001.jpg"] == b"jpeg"
    assert found["JPEGImages/2008_000002.jpg"] == b"another"


@pytest.mark.parametrize("member", [
    ("VOCdevkit/VOC2007/JPEGImages/../../../../evil.jpg", b"evil"), ("/VOCdevkit/VOC2007/JPEGImages/evil.jpg", b"evil"),
    ("VOCdevkit/../evil.jpg", b"evil"), (IMAGE, tarfile.SYMTYPE, "/etc/passwd"), (IMAGE, tarfile.LNKTYPE, "../evil"),
    ("VOCdevkit/VOC2007/JPEGImages", tarfile.SYMTYPE, "/tmp"), (IMAGE, tarfile.CHRTYPE, ""), (IMAGE, tarfile.FIFOTYPE, ""),
])
def test_what_leads_out_of_the_folder_is_refused(tmp_path, archive, member):
    path = archive(member, (IMAGE, b"behind it"))
    with pytest.raises(PipelineError) as caught:
        unpack(path, tmp_path / "voc")
    assert str(caught.value).startswith(f"{path}: '{member[0]}' is a link, a device or leads out of the folder")
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_image_twice_is_refused(tmp_path, archive):
    path = archive((IMAGE, b"one"), (IMAGE, b"other"))
    with pytest.raises(PipelineError, match=r"voc\.tar: .*is there already"):
        unpack(path, tmp_path / "voc")


def test_a_damaged_archive_is_named(tmp_path, archive):
    path = archive((IMAGE, bytes(5000)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(PipelineError, match=r"voc\.tar: cannot be unpacked into .*unexpected end of data"):
        unpack(path, tmp_path / "voc")


def test_names_and_checksums_are_torchvisions():
    from torchvision.datasets.voc import DATASET_YEAR_DICT as known

    # Of the addresses the paths alone: older torchvisions have another host.
    theirs = {urlsplit(known[key]["url"]).path: known[key]["md5"] for key in ("2007", "2007-test", "2012")}
    assert {urlsplit(archive.urls([])[0]).path: archive.md5 for archive in DATA_SETS["voc0712"]} == theirs
    assert set(DATA_SETS["voc0712"]) == {*DATA_SETS["voc2007"], *DATA_SETS["voc2012"]}


def test_mirrors_come_before_the_official_address():
    (archive,) = archives_of("voc2012")
    assert archive.urls(["http://a/b/", "file:///c"]) == [
        f"http://a/b/{archive.name}", f"file:///c/{archive.name}", f"{URL}voc2012/{archive.name}"
    ]


def test_an_unknown_data_set_is_named():
    with pytest.raises(PipelineError, match="--dataset voc2011: not a data set to download; there are voc2007, voc2012, voc0712"):
        archives_of("voc2011")
