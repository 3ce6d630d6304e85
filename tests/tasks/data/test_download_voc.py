"""VOC by name, from tiny archives on a server on this machine."""

import hashlib
import io
import shutil
import tarfile

import luigi
import numpy as np
import pytest

import tasks
from pipeline.datasets import voc_archives
from pipeline.datasets.voc_archives import DATA_SETS, Archive
from pipeline.datasets.voc_writing import AnnotatedImage, write_split
from pipeline.errors import PipelineError
from pipeline.segmentation.label_maps import LabelMaps, label_names
from tasks.data.splits import load_split
from tests.pipeline.datasets.test_sbd import archive_of, mat

CAT = 8  # VOC's value of it in masks


def tar_of(folder, year: str, split: str, *ids: str) -> bytes:
    """An archive in VOC's layout with one object in each image, and its mask."""
    pixels, boxes = np.zeros((20, 30, 3), np.uint8), np.array([[2, 3, 12, 13]])
    mask = np.zeros((20, 30), np.uint8)
    mask[3:13, 2:12] = CAT
    write_split(folder, split, [AnnotatedImage(id, pixels, boxes, ["cat"], [False], class_mask=mask) for id in ids])
    lists = shutil.copytree(folder / "ImageSets/Main", folder / "ImageSets/Segmentation")
    for name in ("train.txt", "val.txt"):  # which VOC's archives always have
        (lists / name).touch()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, f"VOCdevkit/VOC{year}")
    return buffer.getvalue()


@pytest.fixture
def voc(tmp_path, file_server, monkeypatch):
    """Archives of 2007 and 2012 on the server at /mirror; nothing answers at the official address."""
    monkeypatch.setattr(voc_archives, "URL", "http://127.0.0.1:9/")
    archives = []
    for name, year, split, *ids in [
        ("trainval07.tar", "2007", "trainval", "000001", "000002"), ("test07.tar", "2007", "test", "000003"),
        ("trainval12.tar", "2012", "trainval", "2008_000001"),
    ]:
        content = tar_of(tmp_path / name, year, split, *ids)
        file_server.files[f"/mirror/{name}"] = content
        archives.append(Archive(name, f"voc{year}", hashlib.md5(content).hexdigest()))
    sbd = archive_of(tmp_path / "sbd.tgz", {
        "dataset/train.txt": b"2008_000001\n", "dataset/val.txt": b"",
        "dataset/cls/2008_000001.mat": mat("GTcls", np.full((20, 30), 15, np.uint8)),
    }).read_bytes()
    file_server.files["/mirror/sbd.tgz"] = sbd
    of_sbd = Archive("sbd.tgz", "sbd", hashlib.md5(sbd).hexdigest(), "http://127.0.0.1:9/sbd.tgz")
    monkeypatch.setattr(voc_archives, "SBD_ARCHIVE", of_sbd)
    for name, chosen in {"voc2007": archives[:2], "voc2012": archives[2:], "voc0712": archives}.items():
        monkeypatch.setitem(DATA_SETS, name, tuple(chosen))
    return file_server


@pytest.fixture
def index(tmp_path, voc, stages):
    """index(dataset, split) -> the task that indexes it."""

    def make(dataset: str, split: str = "trainval", **settings):
        folders = {"cache_dir": str(tmp_path / "cache"), "data_dir": str(tmp_path / "data")}
        settings = {"voc_mirror": (f"{voc.url}/mirror",), **folders, **settings}
        return tasks.IndexDataset(dataset=dataset, split=split, train_split="trainval", **settings)

    return make


DOWNLOAD = ("dataset", "cache_dir", "data_dir", "voc_mirror")
SETTINGS = (*DOWNLOAD, "split", "train_split")


def ids(stages, task) -> list[str]:
    return [image.id for image in load_split(stages.make(task).artefact).images]


def test_the_union_trains_on_both_years_and_is_tested_on_one(stages, index, tmp_path, voc):
    assert ids(stages, index("voc0712")) == ["000001", "000002", "2008_000001"]
    assert ids(stages, index("voc0712", "test")) == ["000003"]
    assert ids(stages, index("voc2007")) == ["000001", "000002"]
    assert ids(stages, index("voc2012")) == ["2008_000001"]
    assert sorted(voc.requested) == ["/mirror/test07.tar", "/mirror/trainval07.tar", "/mirror/trainval12.tar"]
    assert sorted(path.name for path in (tmp_path / "data" / "archives").iterdir()) == [
        "test07.tar", "trainval07.tar", "trainval12.tar"
    ]
    assert [*(tmp_path / "cache" / ".locks").iterdir(), *(tmp_path / "cache" / ".work").iterdir()] == []


def test_its_identity_is_the_archives_checksum(stages, index, monkeypatch):
    first = index("voc2007").key
    assert first == index("voc2007", voc_mirror=("http://elsewhere",), data_dir="elsewhere").key != index("voc0712").key
    stages.make(index("voc2007"))
    archive, *others = DATA_SETS["voc2007"]
    for md5, same in ((archive.md5, True), ("0" * 32, False)):
        luigi.task_register.Register.clear_instance_cache()
        monkeypatch.setitem(DATA_SETS, "voc2007", (archive._replace(md5=md5), *others))
        assert (index("voc2007").key == first) is same


def test_a_killed_download_goes_on_and_leaves_no_data_set_before(stages, index, tmp_path, voc):
    voc.cut = 9000
    with pytest.raises(PipelineError, match=r"trainval07\.tar is not here and cannot be .*cut off after 9000 of") as caught:
        stages.make(index("voc2007"))
    assert [problem.split(" ")[0] for problem in caught.value.problems] == ["trainval07.tar", "test07.tar"]
    assert not list((tmp_path / "cache").glob("DownloadVOC/*"))
    voc.cut = None
    assert len(ids(stages, index("voc2007"))) == 2
    assert voc.starts == [0, 0, 9000, 9000]


def test_without_a_connection_an_archive_put_there_by_hand_is_used(stages, index, tmp_path, voc):
    task = index("voc2012", voc_mirror=())
    place = tmp_path / "data" / "archives" / "trainval12.tar"
    with pytest.raises(PipelineError) as caught:
        stages.make(task)
    (message,) = caught.value.problems
    assert message.startswith("trainval12.tar is not here and cannot be downloaded (")
    assert f"get http://127.0.0.1:9/voc2012/trainval12.tar on a machine with a connection and put it at {place}" in message
    place.write_bytes(b"put there by hand")
    with pytest.raises(PipelineError, match=r"expected .*; remove it and get it again"):
        stages.make(task)
    place.write_bytes(voc.files["/mirror/trainval12.tar"])
    assert ids(stages, task) == ["2008_000001"]
    assert voc.requested == []


def test_a_folder_of_this_name_goes_before_the_download(stages, index, tmp_path, voc):
    tar_of(tmp_path / "data" / "voc2007", "2007", "trainval", "mine")
    assert ids(stages, index("voc2007")) == ["mine"]
    assert voc.requested == []


def test_for_boxes_masks_stay_in_the_archive(stages, index):
    task = stages.make(index("voc2007"))
    assert all(image.class_mask is None for image in load_split(task.artefact).images)
    assert not list(task.root.glob("Segmentation*"))


def test_for_segmentation_they_come_with_vocs_labels(stages, index, tmp_path, voc):
    boxes = index("voc0712")
    task = stages.make(tasks.IndexMasks(**{name: getattr(boxes, name) for name in SETTINGS}))
    split = load_split(task.artefact)
    assert [image.id for image in split.images] == ["000001", "000002", "2008_000001"]
    assert label_names(split).names[CAT] == split.classes[CAT - 1] == "cat"
    assert len(label_names(split)) == 21
    assert LabelMaps(task.mask_root, label_names(split)).read(split.images[2]).max() == CAT
    assert task.source().stage == "DownloadMasks"
    assert index("voc0712").source().stage == "DownloadVOC"


def test_offline_both_archives_of_sbd_are_named(stages, index, tmp_path):
    boxes = index("sbd", voc_mirror=())
    with pytest.raises(PipelineError) as caught:
        stages.make(tasks.DownloadMasks(**{name: getattr(boxes, name) for name in DOWNLOAD}))
    assert [problem.split(" ")[0] for problem in caught.value.problems] == ["trainval12.tar", "sbd.tgz"]
    assert f"put it at {tmp_path / 'data/archives/sbd.tgz'}" in caught.value.problems[1]


def test_sbd_adds_masks_to_vocs_photographs(stages, index, tmp_path):
    boxes = index("sbd", "trainaug")
    task = tasks.IndexMasks(**{**{name: getattr(boxes, name) for name in SETTINGS}, "train_split": "trainaug"})
    stages.make(task)
    assert task.source().artefact.manifest["figures"] == {
        "images": 1, "sbd_masks": 1, "masks_of_voc_kept": 0, "sbd_images_in_voc_val": 0,
    }
    split = load_split(task.artefact)
    assert split.classes[LabelMaps(task.mask_root, label_names(split)).read(split.images[0]).max() - 1] == "person"
