"""Writers of the three formats: each is given the images one by one, then writes what serves all of them.

| | boxes | keypoints | masks | difficult | regions to ignore |
|-|-|-|-|-|-|
| VOC | 12 digits | keypoints.json | yes | yes | no |
| COCO | exact | yes | outlines (`outlines.py`) | yes | `iscrowd` |
| YOLO | 9 decimals of the image's sides | yes | no | no | no |

What a format cannot hold is counted in `Target.lost`.
"""

import abc
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.conversion.outlines import OutlineMaker, Outlines
from pipeline.datasets.keypoints import FILE as KEYPOINTS
from pipeline.datasets.keypoints import pairs_by_name
from pipeline.datasets.layouts import COCO, VOC, YOLO, instances_name, voc_list_name
from pipeline.datasets.masks import MASK_FOLDERS
from pipeline.datasets.records import MASKS, NO_CLASS, ImageRecord
from pipeline.datasets.voc_writing import AnnotatedImage, to_xml
from pipeline.datasets.whole import Dataset
from pipeline.datasets.yolo_document import OTHER_KEYS
from pipeline.errors import PipelineError
from pipeline.files.writing import create, write_file

DECIMALS = 9  # of YOLO's fractions: 0.00001 pixels of an image of 10,000 pixels
REGIONS, MARKS, PAIRS, LIMBS = "regions to ignore", "marks of difficult objects", "pairs of keypoints", "limbs between keypoints"


@dataclass
class Target:
    """The new folder, the data set that goes into it, and the names of the images there. `chosen`: the user chose the classes."""

    folder: Path
    dataset: Dataset
    names: dict[str, str]
    chosen: bool = False
    lost: Counter = field(default_factory=Counter)
    noted: Counter = field(default_factory=Counter)

    def stem(self, image: ImageRecord) -> str:
        return os.path.splitext(self.names[image.path])[0]

    def class_names(self, image: ImageRecord) -> list[str]:
        return [self.dataset.classes[label] for label in image.labels]

    @property
    def skeleton(self):
        """The names of the keypoints; None where no split has any. Raises PipelineError where splits have different ones."""
        skeletons = {split.skeleton for split in self.dataset.splits.values() if split.skeleton}
        if len(skeletons) > 1:
            raise PipelineError(f"{self.dataset.root}: its splits have different keypoints; give some of them with --splits")
        return next(iter(skeletons), None)

    def lose(self, what: str, count: int) -> None:
        if count:
            self.lost[what] += count

    def lose_masks(self, image: ImageRecord) -> None:
        self.lose("masks", sum(getattr(image, name) is not None for name in MASKS))

    def write_lists(self, name_of_list, line) -> None:
        """A list of each split's images."""
        for name, split in self.dataset.splits.items():
            path = self.folder / name_of_list(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, "".join(f"{line(image)}\n" for image in split.images))


def kept(image: ImageRecord, format: str) -> ImageRecord:
    """What the format holds of an image's objects."""
    if format == COCO:
        return image.select(image.labels != NO_CLASS)
    return image.without_ignored()


class Writer(abc.ABC):
    """Writes annotations into `target`; the images and masks go into the folders that it names."""

    image_folder = "images"
    mask_folders: Mapping[str, str] = {}

    def __init__(self, target: Target):
        self.target = target

    @abc.abstractmethod
    def add(self, image: ImageRecord) -> None:
        """Takes the next image; each comes once."""

    @abc.abstractmethod
    def finish(self) -> None:
        """Writes what all images have part in."""


class VocWriter(Writer):
    image_folder, mask_folders = "JPEGImages", MASK_FOLDERS

    def __init__(self, target: Target):
        super().__init__(target)
        self._keypoints: list[dict] = []
        (target.folder / "Annotations").mkdir()

    def add(self, image: ImageRecord) -> None:
        target, objects = self.target, kept(image, VOC)
        target.lose(REGIONS, len(image.labels) - len(objects.labels))
        pixels = np.broadcast_to(np.uint8(0), (image.height, image.width, 3))  # only the shape is written
        stem, names = target.stem(image), target.class_names(objects)
        annotated = AnnotatedImage(stem, pixels, objects.boxes, names, objects.difficult.tolist())
        write_file(target.folder / f"Annotations/{stem}.xml", to_xml(annotated, target.names[image.path]))
        for place, keypoints in enumerate(() if objects.keypoints is None else objects.keypoints):
            if keypoints.any():
                rows = [[*map(_number, row)] for row in keypoints]
                self._keypoints.append({"image": stem, "object": place, "keypoints": rows})

    def finish(self) -> None:
        self.target.write_lists(voc_list_name, self.target.stem)
        if skeleton := self.target.skeleton:
            document = {**skeleton.to_json(), "objects": self._keypoints}
            write_file(self.target.folder / KEYPOINTS, json.dumps(document) + "\n")


class CocoWriter(Writer):
    def __init__(self, target: Target):
        super().__init__(target)
        self._ids = {path: number for number, path in enumerate(target.names, 1)}
        self._maker = OutlineMaker(target.dataset, lost=target.lost, noted=target.noted, chosen=target.chosen)
        self._outlines: dict[str, Outlines] = {}  # by the image's path

    def add(self, image: ImageRecord) -> None:
        objects = kept(image, COCO)
        self.target.lose("regions to ignore of no class", len(image.labels) - len(objects.labels))
        if self._maker.is_useful:
            self._outlines[image.path] = self._maker.make(objects)
        else:
            self.target.lose_masks(image)

    def finish(self) -> None:
        target, skeleton = self.target, self.target.skeleton
        (target.folder / "annotations").mkdir()
        if skeleton:
            target.lose(PAIRS, len(set(skeleton.flip_pairs) ^ set(pairs_by_name(skeleton.names))))
        pose = {"keypoints": list(skeleton.names), "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs]} if skeleton else {}
        categories = [{"id": number, "name": name, **pose} for number, name in enumerate(target.dataset.classes, 1)]
        for name, split in target.dataset.splits.items():
            tables: dict[str, Iterable[dict]] = {
                "images": map(self._image, split.images), "categories": categories, "annotations": self._objects(split.images),
            }
            _write_json(target.folder / instances_name(name), tables)

    def _image(self, image: ImageRecord) -> dict:
        name, outlines = self.target.names[image.path], self._outlines.get(image.path)
        void = {"void": outlines.void} if outlines and outlines.void else {}
        return {"id": self._ids[image.path], "file_name": name, "width": image.width, "height": image.height, **void}

    def _objects(self, images: Iterable[ImageRecord]) -> Iterator[dict]:
        id = 0
        for image in images:
            objects, outlines = kept(image, COCO), self._outlines.get(image.path)
            for row, (x1, y1, x2, y2) in enumerate(objects.boxes.astype(np.float64)):
                id += 1
                marks: dict = {"iscrowd": int(objects.ignored[row])}
                if objects.difficult[row]:
                    marks["difficult"] = 1
                if objects.keypoints is not None and objects.keypoints[row].any():
                    keypoints = objects.keypoints[row]
                    marks |= {"keypoints": [*map(_number, keypoints.ravel())], "num_keypoints": int((keypoints[:, 2] > 0).sum())}
                sides = [_number(side) for side in (x1, y1, x2 - x1, y2 - y1)]
                area = _number((x2 - x1) * (y2 - y1))
                if outlines:
                    area, marks["segmentation"] = outlines.areas[row], outlines.objects[row]
                yield {"id": id, "image_id": self._ids[image.path], "category_id": int(objects.labels[row]) + 1, "bbox": sides,
                       "area": area, **marks}


class YoloWriter(Writer):
    def __init__(self, target: Target):
        super().__init__(target)
        if wrong := [name for name in target.dataset.splits if name in OTHER_KEYS]:
            raise PipelineError(f"split '{wrong[0]}': data.yaml has another use for this name; give other splits with --splits")
        (target.folder / "labels").mkdir()

    def add(self, image: ImageRecord) -> None:
        target, objects = self.target, kept(image, YOLO)
        target.lose(REGIONS, len(image.labels) - len(objects.labels))
        target.lose(MARKS, int(objects.difficult.sum()))
        target.lose_masks(image)
        sides = np.array([image.width, image.height], np.float64)
        boxes = objects.boxes.astype(np.float64).reshape(-1, 2, 2)
        rows = np.concatenate([boxes.mean(axis=1) / sides, (boxes[:, 1] - boxes[:, 0]) / sides], axis=1)
        lines = [[str(label), *map(_fraction, row)] for label, row in zip(objects.labels.tolist(), rows)]
        if target.skeleton:
            count = len(target.skeleton.names)
            keypoints = np.zeros((len(lines), count, 3)) if objects.keypoints is None else objects.keypoints.astype(np.float64)
            scaled = np.concatenate([keypoints[..., :2] / sides, keypoints[..., 2:]], axis=2)
            for line, points in zip(lines, scaled):
                line += [_fraction(value) for value in points.ravel()]
        write_file(target.folder / f"labels/{target.stem(image)}.txt", "".join(f"{' '.join(line)}\n" for line in lines))

    def finish(self) -> None:
        import yaml  # not above: the other formats need none

        target = self.target
        target.write_lists(lambda name: f"{name}.txt", lambda image: f"./images/{target.names[image.path]}")
        document: dict = {name: f"{name}.txt" for name in target.dataset.splits}
        document["names"] = dict(enumerate(target.dataset.classes))
        if skeleton := target.skeleton:
            flipped = skeleton.mirrored.tolist()
            names = {number: list(skeleton.names) for number in range(len(target.dataset.classes))}
            document |= {"kpt_shape": [len(skeleton.names), 3], "flip_idx": flipped, "kpt_names": names}
            target.lose(LIMBS, len(skeleton.limbs))
        write_file(target.folder / "data.yaml", yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def _write_json(path: Path, tables: dict[str, Iterable[dict]]) -> None:
    """Writes lists as one JSON object, an entry a line: never the whole text in memory."""
    with create(path) as file:
        for number, (name, entries) in enumerate(tables.items()):
            file.write(("," if number else "{").encode() + f'\n"{name}": ['.encode())
            for place, entry in enumerate(entries):
                file.write(("," if place else "").encode() + b"\n" + json.dumps(entry).encode())
            file.write(b"\n]")
        file.write(b"\n}\n")


def _number(value) -> int | float:
    """A number as JSON has it: whole ones without a point."""
    value = float(value)
    return int(value) if value.is_integer() else value


def _fraction(value: float) -> str:
    return f"{value:.{DECIMALS}f}".rstrip("0").rstrip(".")


WRITERS: Mapping[str, Callable[[Target], Writer]] = {VOC: VocWriter, COCO: CocoWriter, YOLO: YoloWriter}
