"""Detections in a user's images as files: JSON, and COCO's and VOC's result files."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from pipeline.detection.detections import Detections, ImageDetections
from pipeline.detection.result_files import write_coco, write_voc
from pipeline.files.writing import create

RESULT = "detections.json"
SPLIT = "photographs"  # what VOC's files are named after


def write_results(folder: Path, images: Sequence[dict], detections: Detections) -> None:
    """Writes `detections.json`, `coco.json` and `voc/` into `folder`.

    `images` are dictionaries with the name of each as `image`, and its `width` and `height`, or the `error` for which it has no
    detections. `detections` are of the others, in their order. In JSON a line is an image, its detections best score first.
    """
    usable = [image for image in images if "error" not in image]
    failed = [{"image": image["image"], "error": image["error"]} for image in images if "error" in image]
    with create(folder / RESULT) as file:
        file.write(f'{{"classes": {_json(detections.classes)},\n"failed": {_json(failed)},\n"images": ['.encode())
        for number, image in enumerate(usable):
            size = {name: image[name] for name in ("image", "width", "height")}
            entry = {**size, "detections": _entries(ImageDetections.of(detections, number))}
            file.write(f"{',' if number else ''}\n{_json(entry)}".encode())
        file.write(b"\n]}\n")
    write_coco(folder / "coco.json", detections)
    (folder / "voc").mkdir()
    write_voc(folder / "voc", SPLIT, replace(detections, image_ids=tuple(map(voc_id, detections.image_ids))))


def _json(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def _entries(detections: ImageDetections) -> list[dict]:
    # The fewest digits that identify a float32.
    numbers = [[float(str(value)) for value in (score, *box)] for score, box in zip(detections.scores, detections.boxes)]
    return [{"class": name, "score": score, "box": box} for name, (score, *box) in zip(detections.names, numbers)]


def voc_id(name: str) -> str:
    """The name of an image without spaces, which VOC's files cannot hold: white space and % are escaped as in URLs (%20, %25)."""
    return re.sub(r"[\s%]", lambda match: quote(match[0]), name)
