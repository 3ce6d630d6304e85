"""Detections as annotations that labelling tools open, to be corrected there.

    voc/NAME.xml            beside the photograph, as labelImg reads it: 1-based, inclusive corners, whole pixels
    coco/annotations/instances_default.json        as CVAT imports it
    yolo/data.yaml, yolo/labels/NAME.txt           as Ultralytics and Roboflow read them: centre, width and height as shares
    label-studio/tasks.json, label-studio/labels.xml        what Label Studio imports, and its labelling interface

NAME is the photograph's name without its suffix, with the folders that it is in. Boxes are cut to the photograph. Those without
area there are left out and counted.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from pipeline.boxes import to_inclusive
from pipeline.detection.detections import ImageDetections
from pipeline.errors import PipelineError
from pipeline.files.writing import write_file

BY_STEM = ("voc", "yolo")  # formats that find a photograph's file by its name without suffix
COCO_FILE = "instances_default.json"  # the split is called as CVAT calls it
NOT_IN_XML = r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]"
FROM_NAME, TO_NAME, IMAGE = "label", "image", "image"  # names in Label Studio's interface


@dataclass(frozen=True, eq=False)
class Annotated:
    """One photograph: its name, size in pixels, and the detections that become its annotations."""

    name: str
    width: int
    height: int
    detections: ImageDetections

    @property
    def stem(self) -> str:
        return os.path.splitext(self.name)[0]

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


def prepare(name: str, width: int, height: int, detections: ImageDetections, lowest: np.ndarray) -> tuple[Annotated, int]:
    """The detections that reach the lowest score [C] of their class, cut to the photograph; and how many had no area there."""
    rows = np.flatnonzero(detections.reach(lowest))
    boxes = np.clip(detections.boxes[rows], 0, [width, height, width, height]).astype(np.float32)
    whole = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    rows, boxes = rows[whole], boxes[whole]
    kept = ImageDetections(boxes, detections.scores[rows], detections.labels[rows], detections.classes)
    return Annotated(name, width, height, kept), int((~whole).sum())


def write_annotations(
    folder: Path, formats: Sequence[str], images: Sequence[Annotated], classes: Sequence[str], studio_images: str = ""
) -> None:
    """Writes the annotations of `images` in each of `formats` into `folder`; `studio_images` as in `studio_tasks`.

    Raises PipelineError for photographs that would have the same file of annotations.
    """
    if set(formats) & set(BY_STEM):
        check_stems(images)
    if "voc" in formats:
        for image in images:
            _write(folder / "voc" / f"{image.stem}.xml", voc_xml(image))
    if "coco" in formats:
        _write(folder / "coco" / "annotations" / COCO_FILE, _lines(coco_document(images, classes)))
    if "yolo" in formats:
        names = "".join(f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for number, name in enumerate(classes))
        _write(folder / "yolo" / "data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{names}")
        for image in images:
            _write(folder / "yolo" / "labels" / f"{image.stem}.txt", yolo_text(image))
    if "label-studio" in formats:
        _write(folder / "label-studio" / "tasks.json", _lines(studio_tasks(images, studio_images)))
        _write(folder / "label-studio" / "labels.xml", studio_interface(classes))


def check_stems(images: Sequence[Annotated]) -> None:
    """Raises PipelineError, naming them, for photographs whose names differ in the suffix alone."""
    counts = Counter(image.stem for image in images)
    if clashes := [image.name for image in images if counts[image.stem] > 1]:
        formats = " and ".join(BY_STEM)
        raise PipelineError(f"{', '.join(clashes[:4])}: would share a file of annotations ({formats}); rename one of them")


def voc_xml(image: Annotated) -> str:
    """VOC's XML. Corners are whole pixels, rounded, at least one pixel apart and in the photograph."""
    most = np.array([*image.size, *image.size])
    corners = np.clip(np.rint(to_inclusive(image.detections.boxes.astype(np.float64), first=1)), 1, most).astype(int)
    folder, name = os.path.split(image.name)
    objects = "".join(
        f"\t<object>\n\t\t<name>{_xml(label)}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
        f"\t\t<difficult>0</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>{x1}</xmin>\n\t\t\t<ymin>{y1}</ymin>\n"
        f"\t\t\t<xmax>{max(x1, x2)}</xmax>\n\t\t\t<ymax>{max(y1, y2)}</ymax>\n\t\t</bndbox>\n\t</object>\n"
        for label, (x1, y1, x2, y2) in zip(image.detections.names, corners.tolist(), strict=True)
    )
    return (
        f"<annotation>\n\t<folder>{_xml(folder)}</folder>\n\t<filename>{_xml(name)}</filename>\n"
        f"\t<size>\n\t\t<width>{image.width}</width>\n\t\t<height>{image.height}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _xml(text: str) -> str:
    """`text` in XML, which has no place for most control characters."""
    return escape(re.sub(NOT_IN_XML, "\ufffd", text))


def coco_document(images: Sequence[Annotated], classes: Sequence[str]) -> dict:
    """COCO's instances: ids count from 1."""
    annotations: list[dict] = []
    for number, image in enumerate(images, start=1):
        boxes = image.detections.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        for label, score, box in zip(image.detections.labels.tolist(), image.detections.scores, boxes.tolist(), strict=True):
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "bbox": box, "area": box[2] * box[3],
                "iscrowd": 0, "segmentation": [], "score": float(str(score)),
            })
    return {
        "images": [{"id": number, "file_name": image.name, "width": image.width, "height": image.height}
                   for number, image in enumerate(images, start=1)],
        "categories": [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(classes, start=1)],
        "annotations": annotations,
    }


def yolo_text(image: Annotated) -> str:
    """A line for each box: class (from 0), centre x and y, width and height, as shares of the photograph's."""
    boxes = image.detections.boxes.astype(np.float64)
    shares = np.hstack([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]]) / [*image.size, *image.size]
    lines = zip(image.detections.labels.tolist(), shares.tolist(), strict=True)
    return "".join(f"{label} {' '.join(f'{share:.9f}' for share in row)}\n" for label, row in lines)


def studio_tasks(images: Sequence[Annotated], prefix: str) -> list[dict]:
    """Label Studio's tasks, each with one prediction. A photograph's address is `prefix`, then its name, escaped as in URLs.

    Coordinates are percents of width and height. A score is written as it is; that of the
    prediction, by which Label Studio sorts, is its lowest.
    """
    tasks = []
    for number, image in enumerate(images, start=1):
        boxes = image.detections.boxes.astype(np.float64)
        percents = 100 * np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]) / [*image.size, *image.size]
        rows = zip(image.detections.names, image.detections.scores, percents.tolist(), strict=True)
        result = [
            {
                "id": f"{number}-{place}", "type": "rectanglelabels", "from_name": FROM_NAME, "to_name": TO_NAME,
                "original_width": image.width, "original_height": image.height, "image_rotation": 0, "score": float(str(score)),
                "value": {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [name]},
            }
            for place, (name, score, (x, y, width, height)) in enumerate(rows, start=1)
        ]
        lowest = float(str(image.detections.scores.min())) if result else 0.0
        prediction = {"model_version": "rcnn-pipeline", "score": lowest, "result": result}
        tasks.append({"data": {IMAGE: f"{prefix}{quote(image.name)}"}, "predictions": [prediction]})
    return tasks


def studio_interface(classes: Sequence[str]) -> str:
    """The labelling interface that the predictions fit."""
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in classes)
    return (
        f'<View>\n  <Image name="{TO_NAME}" value="${IMAGE}"/>\n'
        f'  <RectangleLabels name="{FROM_NAME}" toName="{TO_NAME}">\n{labels}  </RectangleLabels>\n</View>\n'
    )


def _lines(value: list | dict) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text)
