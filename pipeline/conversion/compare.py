"""Whether a converted data set says what its source says: the largest difference of a box, in pixels."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.conversion.writers import kept
from pipeline.datasets.layouts import VOC, YOLO
from pipeline.datasets.records import MASKS, ImageRecord
from pipeline.datasets.whole import Dataset, Progress, read_dataset, silent
from pipeline.errors import PipelineError

TOLERANCE = 0.01  # pixels; no format rounds by nearly as much


@dataclass(frozen=True)
class Differences:
    """The largest difference of a corner of a box, and of a keypoint, in pixels; and how many objects were compared."""

    boxes: float = 0.0
    keypoints: float = 0.0
    objects: int = 0

    def max(self, other: "Differences") -> "Differences":
        return Differences(max(self.boxes, other.boxes), max(self.keypoints, other.keypoints), self.objects + other.objects)


def compare(
    source: Dataset, names: Mapping[str, str], folder: Path, *, format: str, rules: Mapping, progress: Progress = silent
) -> Differences:
    """The largest differences between a data set and its copy in `folder`; `names` gives the copies' file names, by path.

    Raises PipelineError, naming the image, when anything differs by more than rounding.
    """
    # The writers use VOC's own convention, and write no faults.
    strict = {**rules, "voc_first_pixel": 1, "on_bad_annotation": "error"}
    written = read_dataset(folder, tuple(source.splits), (), progress, **strict)
    largest = Differences()
    for name, split in source.splits.items():
        copies = list(written.splits[name].images)
        if len(copies) != len(split.images):
            raise PipelineError(f"split '{name}': {len(split.images)} images were read and {len(copies)} written")
        for image, copy in zip(split.images, copies):
            where = f"split '{name}', image {image.path}"
            if os.path.basename(copy.path) != names[image.path] or copy.digest != image.digest:
                raise PipelineError(f"{where}: was written as {copy.path}, which is another image")
            classes = source.classes, written.classes
            largest = largest.max(_compare(where, kept(image, format), copy, classes=classes, format=format))
    return largest


def _compare(where: str, image: ImageRecord, copy: ImageRecord, *, classes, format: str) -> Differences:
    labels = ([names[label] for label in record.labels] for names, record in zip(classes, (image, copy)))
    same = next(labels) == next(labels) and np.array_equal(image.ignored, copy.ignored)
    same &= format == YOLO or np.array_equal(image.difficult, copy.difficult)
    same &= format != VOC or _masks(image) == _masks(copy)
    same &= image.keypoints is None or not image.keypoints.any() or copy.keypoints is not None
    if not same:
        raise PipelineError(f"{where}: the written copy has other objects; please report this")
    boxes = float(np.abs(image.boxes - copy.boxes).max(initial=0))
    keypoints = 0.0
    if image.keypoints is not None and copy.keypoints is not None:
        keypoints = float(np.abs(image.keypoints - copy.keypoints).max(initial=0))
    if boxes > TOLERANCE or keypoints > TOLERANCE:
        raise PipelineError(f"{where}: a box or a keypoint moved by {max(boxes, keypoints):.4f} pixels; please report this")
    return Differences(boxes, keypoints, len(image.labels))


def _masks(image: ImageRecord) -> list[str | None]:
    """The digests of an image's masks."""
    return [mask and mask.digest for mask in (getattr(image, name) for name in MASKS)]
