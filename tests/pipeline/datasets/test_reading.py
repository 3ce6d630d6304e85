"""Large splits: what is asked of the file system, and the memory that an image takes; the same in either layout."""

import hashlib
import io
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.formats import read_split, split_files
from pipeline.datasets.reading import Listing

NUMBER, OBJECTS = 400, 3


def image_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_voc(root: Path) -> Path:
    """A split `train` in VOC's layout."""
    ids = [f"2008_{number:08}" for number in range(NUMBER)]
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>6</ymax></bndbox>"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for id in ids:
        (root / "JPEGImages" / f"{id}.png").write_bytes(image_bytes())
        (root / "Annotations" / f"{id}.xml").write_text(
            f"<annotation>{f'<object><name>cat</name>{box}</object>' * OBJECTS}</annotation>"
        )
    (root / "ImageSets/Main/train.txt").write_text("\n".join(ids))
    return root


def write_coco(root: Path) -> Path:
    """The same in COCO's layout, with outlines."""
    names = [f"{number:012}.png" for number in range(NUMBER)]
    for folder in ("annotations", "train"):
        (root / folder).mkdir(parents=True)
    for name in names:
        (root / "train" / name).write_bytes(image_bytes())
    unread = {"width": 8, "height": 8, "coco_url": "x" * 99}
    images = [{"id": number, "file_name": name, **unread} for number, name in enumerate(names)]
    annotations = [
        {"id": number, "image_id": number // OBJECTS, "category_id": 7, "bbox": [0, 0.5, 4, 5.25], "segmentation": [[0.5] * 8]}
        for number in range(OBJECTS * NUMBER)
    ]
    document = {"images": images, "categories": [{"id": 7, "name": "cat"}], "annotations": annotations}
    (root / "annotations/instances_train.json").write_text(json.dumps(document))
    return root


def write_yolo(root: Path) -> Path:
    """The same in YOLO's layout."""
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    for number in range(NUMBER):
        (root / f"images/train/2008_{number:08}.png").write_bytes(image_bytes())
        (root / f"labels/train/2008_{number:08}.txt").write_text("0 0.3 0.4 0.5 0.6\n" * OBJECTS)
    (root / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    return root


@pytest.fixture(params=[write_voc, write_coco, write_yolo])
def root(request, tmp_path):
    return request.param(tmp_path / "data")


def digests_of(root: Path, names: list[str]) -> dict[str, str]:
    return {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in names}


def test_no_image_is_looked_for_by_itself(root, monkeypatch):
    asked = []
    for name in ("stat", "lstat", "scandir"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path, *rest, real=real, **more: asked.append(path) or real(path, *rest, **more))
    names = split_files(root, "train")
    assert len(names) in (NUMBER + 1, 2 * NUMBER + 1)
    assert len(asked) < 30


def memory_of_reading(root: Path) -> tuple[int, int]:
    """The bytes that a split takes, with the digests of its files, and the most while it is read."""
    tracemalloc.start()
    try:
        digests = digests_of(root, split_files(root, "train"))
        tracemalloc.reset_peak()
        split = read_split(root, "train", None, digests)
        assert [len(image.boxes) for image in split.images] == [OBJECTS] * NUMBER
        return tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("write", [
    write_voc, *(pytest.param(write, marks=pytest.mark.exhaustive) for write in (write_coco, write_yolo)),
])
def test_memory_of_reading_is_1500_bytes_an_image(write, tmp_path):
    root = write(tmp_path / "data")
    # The least of several, since Python's own tables grow now and then.
    used, peak = map(min, zip(*(memory_of_reading(root) for _ in range(2)), strict=True))
    assert used < 900 * NUMBER
    instances = root / "annotations/instances_train.json"
    text = instances.stat().st_size if instances.is_file() else 0
    assert peak - text < 1500 * NUMBER  # the file itself is read as a whole


class TestListing:
    @pytest.fixture
    def files(self, tmp_path):
        for name in ("a.png", "b.png", "sub/a.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "folder.png").mkdir()
        (tmp_path / "dangling.png").symlink_to("nowhere")
        (tmp_path / "link.png").symlink_to("a.png")
        return Listing(tmp_path)

    @pytest.mark.parametrize(("names", "first"), [
        (["a.png", "b.png"], "a.png"), (["c.png", "b.png"], "b.png"), (["sub/b.png", "sub/a.png"], "sub/a.png"),
        (["folder.png", "b.png"], "b.png"), (["dangling.png", "b.png"], "b.png"), (["c.png", "link.png"], "link.png"),
        (["c.png", "none/a.png"], "c.png"), (["a\0.png", "\0/a.png"], "a\0.png"), (["x" * 5000], "x" * 5000),
    ])
    def test_first_that_is_a_file_or_the_first(self, files, names, first):
        assert files.first(names) == first

    def test_folder_that_cannot_be_listed(self, files, monkeypatch):
        def refuse(path):
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr(os, "scandir", refuse)
        assert files.first(["c.png", "b.png"]) == "b.png"
