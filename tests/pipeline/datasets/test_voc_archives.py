"""Unpacking VOC's archives, on tiny ones."""

import contextlib
import io
import os
import tarfile
from urllib.parse import urlsplit

import numpy as np
import pytest

from pipeline.datasets.voc_archives import (
    DATA_SETS,
    SBD_ARCHIVE,
    URL,
    VOC_CLASSES,
    WITH_MASKS,
    archives_of,
    mask_archives_of,
    unpack,
)
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


def test_masks_and_their_lists_where_they_are_wanted(tmp_path, archive):
    lists, masks = ("VOCdevkit/VOC2007/ImageSets/Segmentation/train.txt", b"1\n"), "VOCdevkit/VOC2007/Segmentation"
    first = archive(lists, (f"{masks}Class/1.png", b"class"), (f"{masks}Object/1.png", b"object"), (LIST, b"1\n2\n"))
    unpack(first, tmp_path / "voc", WITH_MASKS)
    unpack(archive((lists[0].replace("2007", "2012"), b"3\n"), name="second.tar"), tmp_path / "voc", WITH_MASKS)
    assert files_of(tmp_path / "voc") == {
        "ImageSets/Main/trainval.txt": b"1\n2\n", "ImageSets/Segmentation/train.txt": b"1\n3\n",
        "SegmentationClass/1.png": b"class", "SegmentationObject/1.png": b"object",
    }


def test_the_classes_and_checksum_of_masks_are_torchvisions(monkeypatch):
    from torchvision.datasets import SBDataset
    from torchvision.models.segmentation import FCN_ResNet50_Weights

    names = FCN_ResNet50_Weights.DEFAULT.meta["categories"]
    assert list(VOC_CLASSES) == names[1:]
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)  # so that they are the sorted names of the objects
    assert (SBD_ARCHIVE.url, SBD_ARCHIVE.md5, SBD_ARCHIVE.name) == (SBDataset.url, SBDataset.md5, SBDataset.filename)


def test_sbd_is_vocs_photographs_and_its_own_masks():
    assert mask_archives_of("sbd") == (*DATA_SETS["voc2012"], SBD_ARCHIVE)
    assert mask_archives_of("voc2007") == DATA_SETS["voc2007"]
    assert SBD_ARCHIVE.urls(["http://a/"]) == ["http://a/benchmark.tgz", SBD_ARCHIVE.url]


def test_several_archives_are_one_data_set_with_joined_lists(tmp_path, archive):
    unpack(archive((IMAGE, b"jpeg"), (LIST, b"000001\n")), tmp_path / "voc")
    second = archive((IMAGE.replace("000001", "2008_000002"), b"another"), (LIST.replace("2007", "2012"), b"2008_000002\n"))
    unpack(second, tmp_path / "voc")
    files = files_of(tmp_path / "voc")
    assert files["ImageSets/Main/trainval.txt"] == b"000001\n2008_000002\n"
    assert files["JPEGImages/000001.jpg"] == b"jpeg"
    assert files["JPEGImages/2008_000002.jpg"] == b"another"


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


def refusal(path, root):
    with pytest.raises(PipelineError) as caught:
        unpack(path, root)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
    return str(caught.value)


def with_headers(path, headers, name=IMAGE, content=b"jpeg", kind=tarfile.XHDTYPE):
    """An archive of one member behind a pax header of these records."""
    records = b""
    for key, value in headers.items():
        record = b" " + key.encode() + b"=" + value + b"\n"
        length = len(record) + len(str(len(record) + 3))
        length = len(record) + len(str(length))
        records += str(length).encode() + record
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("pax")
        info.type, info.size = kind, len(records)
        tar.fileobj.write(info.tobuf(tarfile.USTAR_FORMAT) + records.ljust(-(-len(records) // 512) * 512, b"\0"))
        tar.offset = tar.fileobj.tell()
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("headers", [
    {"path": IMAGE.encode() + b"\0evil"}, {"path": b"\0"}, {"size": b"-1024"}, {"size": b"-1536"}, {"size": b"9" * 400},
    {"size": b"9" * 5000}, {"GNU.sparse.map": b"0,1,x"}, {"GNU.sparse.map": b"0"},
    {"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0"}, {"GNU.sparse.map": b"0,4", "GNU.sparse.size": b"1000000000000"},
    {"path": b"VOCdevkit/VOC2007/JPEGImages/" + b"a" * 5000},
    {"path": b"VOCdevkit/VOC2007/JPEGImages/\x1b[31m\n/../../../x"},
])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE])
def test_headers_that_cannot_be_right(tmp_path, headers, kind):
    path = with_headers(tmp_path / "voc.tar", headers, kind=kind)
    if len(headers.get("size", b"")) > 4000:  # Pythons that do not convert it take the member for empty
        with contextlib.suppress(PipelineError):
            unpack(path, tmp_path / "voc")
    else:
        refusal(path, tmp_path / "voc")
    assert not any(path.stat().st_size > 4 for path in (tmp_path / "voc").rglob("*.jpg"))


def test_holes_are_not_filled(tmp_path):
    """GNU's old format: a member of a terabyte, of which 512 bytes are there."""
    with tarfile.open(tmp_path / "voc.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo(IMAGE)
        info.size = 512
        buffer = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        buffer[156:157] = tarfile.GNUTYPE_SPARSE
        buffer[386:410] = b"00000000000\0" + b"00000001000\0"
        buffer[483:495] = b"77777777777\0"
        buffer[148:156] = b"        "
        buffer[148:156] = b"%06o\0 " % sum(buffer)
        tar.fileobj.write(bytes(buffer) + bytes(512))
        tar.offset = tar.fileobj.tell()
    assert f"'{IMAGE}' has a NUL in its name, holes" in refusal(tmp_path / "voc.tar", tmp_path / "voc")
    assert not (tmp_path / "voc").exists()


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_behind_headers_and_of_any_length(tmp_path, archive, kind):
    info = tarfile.TarInfo("x")
    info.type = kind
    end = archive((IMAGE, b"jpeg")).read_bytes()
    for repeated, size in ((3000, 0), (1, 1 << 40), (1, (1 << 62) + 1)):
        info.size = size
        (tmp_path / "voc.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) * repeated + end)
        with contextlib.suppress(PipelineError):
            unpack(tmp_path / "voc.tar", tmp_path / f"voc{size}")


def test_an_archive_that_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "voc.tar")
    assert "it is a named pipe, not a regular file" in refusal(tmp_path / "voc.tar", tmp_path / "voc")


def test_mutated_archives(tmp_path, archive):
    whole = with_headers(tmp_path / "voc.tar", {"size": b"4", "path": IMAGE.encode(), "GNU.sparse.size": b"4"}).read_bytes()
    generator = np.random.default_rng(0)
    for number in range(600):
        content = bytearray(whole)
        for place in generator.integers(0, 2200, 2):
            content[place] = int(generator.choice([*b"0123456789=-\n\0", *generator.integers(0, 256, 4)]))
        for start in (0, 1024):  # a header whose checksum is wrong ends the archive
            content[start + 148 : start + 156] = b"        "
            content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
        (tmp_path / "voc.tar").write_bytes(content)
        with contextlib.suppress(PipelineError):
            unpack(tmp_path / "voc.tar", tmp_path / f"voc{number}")
