"""The Semantic Boundaries Dataset's masks and lists beside VOC's, from a tiny archive of its layout."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from pipeline.datasets.masks import write_mask
from pipeline.datasets.sbd import unpack_sbd
from pipeline.errors import PipelineError

MASK = np.array([[0, 15, 15], [0, 0, 7]], np.uint8)
OBJECTS = np.array([[0, 1, 1], [0, 0, 2]], np.uint8)


def mat(variable: str, mask: np.ndarray) -> bytes:
    file = io.BytesIO()
    savemat(file, {variable: {"Segmentation": mask, "CategoriesPresent": np.array([7, 15])}})
    return file.getvalue()


def archive_of(path, members: dict[str, bytes]):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"benchmark_RELEASE/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def voc(tmp_path):
    """A folder of VOC with masks of `train` (a, b) and `val` (c)."""
    root = tmp_path / "voc"
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("a\nb\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("c\n")
    for id in "abc":
        write_mask(root / f"SegmentationClass/{id}.png", np.full_like(MASK, 1))
    return root


@pytest.fixture
def members():
    """SBD's members: a is VOC's train, c VOC's val, d and e are SBD's own."""
    masks = {f"dataset/cls/{id}.mat": mat("GTcls", MASK) for id in "acde"}
    objects = {f"dataset/inst/{id}.mat": mat("GTinst", OBJECTS) for id in "acde"}
    return {"dataset/train.txt": b"a\nc\nd\n", "dataset/val.txt": b"e\n", **masks, **objects, "README.txt": b"read me",
            "dataset/img/a.jpg": b"jpeg", "benchmark_code/cls/x.mat": b"code"}


def values(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_masks_are_added_and_vocs_own_are_kept(tmp_path, voc, members):
    figures = unpack_sbd(archive_of(tmp_path / "benchmark.tgz", members), voc)
    assert figures == {"sbd_masks": 2, "masks_of_voc_kept": 1, "sbd_images_in_voc_val": 1}
    for id in "de":
        np.testing.assert_array_equal(values(voc / f"SegmentationClass/{id}.png"), MASK)
        np.testing.assert_array_equal(values(voc / f"SegmentationObject/{id}.png"), OBJECTS)
    for id in "abc":
        assert (values(voc / f"SegmentationClass/{id}.png") == 1).all()
    names = sorted(path.name for path in voc.glob("Segmentation*/*"))
    assert names == ["a.png", "b.png", "c.png", "d.png", "d.png", "e.png", "e.png"]


def test_no_list_for_training_has_an_image_of_val(tmp_path, voc, members):
    unpack_sbd(archive_of(tmp_path / "benchmark.tgz", members), voc)
    lists = {path.stem: path.read_text().split() for path in (voc / "ImageSets/Segmentation").iterdir()}
    assert lists == {"train": ["a", "b"], "val": ["c"], "trainaug": ["a", "b", "d", "e"], "sbdtrain": ["a", "d"]}


@pytest.mark.parametrize(("name", "content", "fault"), [
    ("dataset/cls/d.mat", b"no mat", r"'benchmark_RELEASE/dataset/cls/d.mat' is no MATLAB file with GTcls\.Segmentation"),
    ("dataset/cls/d.mat", mat("GTinst", MASK), r"is no MATLAB file with GTcls\.Segmentation"),
    ("dataset/cls/d.mat", mat("GTcls", MASK / 2), "has no mask of whole numbers from 0 to 255"),
    ("dataset/inst/d.mat", mat("GTinst", MASK.astype(int) + 300), "has no mask of whole numbers from 0 to 255"),
    ("dataset/../../evil.mat", b"evil", "leads out of the folder"),
])
def test_members_that_cannot_be_used_are_named(tmp_path, voc, members, name, content, fault):
    path = archive_of(tmp_path / "benchmark.tgz", {**members, name: content})
    with pytest.raises(PipelineError, match=rf"benchmark\.tgz: .*{fault}"):
        unpack_sbd(path, voc)


def test_an_archive_without_lists(tmp_path, voc, members):
    del members["dataset/val.txt"]
    with pytest.raises(PipelineError, match=r"benchmark\.tgz: has no dataset/val\.txt; get it elsewhere"):
        unpack_sbd(archive_of(tmp_path / "benchmark.tgz", members), voc)


def test_no_archive_at_all(tmp_path, voc):
    (tmp_path / "benchmark.tgz").write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(PipelineError, match=r"benchmark\.tgz: cannot be unpacked into"):
        unpack_sbd(tmp_path / "benchmark.tgz", voc)
