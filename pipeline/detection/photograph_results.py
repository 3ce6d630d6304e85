"""Detections in a user's images as files: JSON, and COCO's and VOC's result files."""

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.datasets.records import CocoNames
from pipeline.detection.detections import Detections, ImageDetections
from pipeline.detection.result_files import coco_image_ids, write_coco, write_voc
from pipeline.files.writing import create

RESULT = "detections.json"
SPLIT = "photographs"  # what VOC's files are named after


def write_results(
    folder: Path, images: Sequence[dict], detections: Detections, category_ids: Sequence[int | str] | None = None
) -> None:
    """Writes `detections.json`, `coco.json` and `voc/` into `folder`.

    `images` are dictionaries with the name of each as `image`, and its `width` and `height`, or the `error` for which it has no
    detections. `detections` are of the others, in their order. `category_ids` are the classes' ids in COCO's file; None counts
    from 1. In JSON a line is an image, its detections best score first.
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
    ids, categories = coco_image_ids(detections.image_ids), category_ids or range(1, len(detections.classes) + 1)
    write_coco(folder / "coco.json", detections, CocoNames(tuple(ids), detections.image_ids, tuple(categories)))
    (folder / "voc").mkdir()
    write_voc(folder / "voc", SPLIT, detections)


def _json(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def _entries(detections: ImageDetections) -> list[dict]:
    # The fewest digits that identify a float32.
    numbers = [[float(str(value)) for value in (score, *box)] for score, box in zip(detections.scores, detections.boxes)]
    return [{"class": name, "score": score, "box": box} for name, (score, *box) in zip(detections.names, numbers)]
