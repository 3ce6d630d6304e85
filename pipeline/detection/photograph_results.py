"""Detections in a user's images as files: JSON, and COCO's and VOC's result files."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.datasets.records import CocoNames
from pipeline.detection.detections import Detections, ImageDetections
from pipeline.detection.result_files import coco_image_ids, write_coco, write_voc
from pipeline.detection.thresholds import probabilities
from pipeline.files.writing import create

RESULT = "detections.json"
SPLIT = "photographs"  # what VOC's files are named after
DECIMALS = 6  # of a probability


def write_results(
    folder: Path, images: Sequence[dict], detections: Detections, settings: Mapping[str, Any] | None = None
) -> None:
    """Writes `detections.json`, `coco.json` and `voc/` into `folder`.

    `images` are dictionaries with the name of each as `image`, and its `width` and `height`, or the `error` for which it has no
    detections. `detections` are of the others, in their order. In JSON a line is an image, its detections best score first.

    `settings` are those of the detector: its `category_ids` are the classes' ids in COCO's file, which otherwise count from 1.
    With a `calibration` each detection has a `probability` too, null for a class without.
    """
    settings = settings or {}
    usable = [image for image in images if "error" not in image]
    failed = [{"image": image["image"], "error": image["error"]} for image in images if "error" in image]
    with create(folder / RESULT) as file:
        file.write(f'{{"classes": {_json(detections.classes)},\n"failed": {_json(failed)},\n"images": ['.encode())
        for number, image in enumerate(usable):
            size = {name: image[name] for name in ("image", "width", "height")}
            entry = {**size, "detections": _entries(ImageDetections.of(detections, number), settings)}
            file.write(f"{',' if number else ''}\n{_json(entry)}".encode())
        file.write(b"\n]}\n")
    ids, categories = coco_image_ids(detections.image_ids), settings.get("category_ids") or range(1, len(detections.classes) + 1)
    write_coco(folder / "coco.json", detections, CocoNames(tuple(ids), detections.image_ids, tuple(categories)))
    (folder / "voc").mkdir()
    write_voc(folder / "voc", SPLIT, detections)


def _json(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def _entries(detections: ImageDetections, settings: Mapping) -> list[dict]:
    # The fewest digits that identify a float32.
    numbers = [[float(str(value)) for value in (score, *box)] for score, box in zip(detections.scores, detections.boxes)]
    entries = [{"class": name, "score": score, "box": box} for name, (score, *box) in zip(detections.names, numbers)]
    if (likely := probabilities(settings, detections.scores, detections.labels)) is None:
        return entries
    return [{**entry, "probability": None if math.isnan(value) else round(value, DECIMALS)}
            for entry, value in zip(entries, likely.tolist(), strict=True)]
