"""Small data sets in VOC's and in COCO's layout, as tests need them, and what a reader makes of them."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.formats import read_split, split_files
from pipeline.errors import DatasetError

WIDTH, HEIGHT = 40, 30


def pixels_of(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(pixels: np.ndarray, format: str = "PNG", orientation: int | None = None, **options) -> bytes:
    """An image file with a mark of rotation."""
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format, **options)
    return file.getvalue()


@dataclass
class Item:
    """An image: its file, its annotated size (width, height), and objects (name, x1, y1, x2, y2), 0-based and exclusive."""

    id: int
    content: bytes
    objects: tuple = (("cat", 2, 3, 12, 13),)
    size: tuple | None = None


class Voc:
    def __init__(self, root: Path, *items: Item, split: str = "train", first: int = 1):
        self.root = root
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for item in items:
            (root / f"JPEGImages/{item.id}.jpg").write_bytes(item.content)
            (root / f"Annotations/{item.id}.xml").write_text(self._xml(item, first))
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{item.id}\n" for item in items))

    @staticmethod
    def _xml(item: Item, first: int) -> str:
        size = "<size><width>{}</width><height>{}</height></size>".format(*item.size) if item.size else ""
        objects = ""
        for name, x1, y1, x2, y2 in item.objects:
            corners = zip(("xmin", "ymin", "xmax", "ymax"), (x1 + first, y1 + first, x2 + first - 1, y2 + first - 1))
            box = "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners)
            objects += f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"
        return f"<annotation>{size}{objects}</annotation>"


class Coco:
    def __init__(self, root: Path, *items: Item, split: str = "train"):
        self.root = root
        for folder in ("annotations", split):
            (root / folder).mkdir(parents=True, exist_ok=True)
        names = sorted({name for item in items for name, *_ in item.objects})
        images, annotations = [], []
        for item in items:
            (root / split / f"{item.id}.jpg").write_bytes(item.content)
            size = dict(zip(("width", "height"), item.size)) if item.size else {}
            images.append({"id": item.id, "file_name": f"{item.id}.jpg", **size})
            annotations += [
                {"id": len(annotations) + number, "image_id": item.id, "category_id": names.index(name) + 1,
                 "bbox": [x1, y1, x2 - x1, y2 - y1]}
                for number, (name, x1, y1, x2, y2) in enumerate(item.objects, 1)
            ]
        categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        self.file = root / f"annotations/instances_{split}.json"
        self.file.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))


LAYOUTS = [Voc, Coco]


def read(root: Path, classes=None, split: str = "train", **rules):
    files = [name for name in split_files(root, split) if (root / name).is_file()]
    digests = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in files}
    return read_split(root, split, classes, digests, **rules)


def problems(root: Path, *arguments, **rules) -> list[str]:
    with pytest.raises(DatasetError) as caught:
        read(root, *arguments, **rules)
    return caught.value.problems


def counts_of(remarks) -> list[tuple[str, int]]:
    """The kinds of remarks and how many cases each stands for."""
    return [(remark.kind, remark.count) for remark in remarks]
