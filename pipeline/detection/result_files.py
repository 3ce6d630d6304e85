"""Detections as VOC's and COCO's result files."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.boxes import from_inclusive, to_inclusive
from pipeline.detection.detections import Detections
from pipeline.errors import PipelineError
from pipeline.files.reading import read_regular
from pipeline.files.writing import create, write_file

# Nine digits identify every float32.
VOC_LINE = "%s" + 5 * " %.9g" + "\n"
COCO_ENTRY = '\n{"image_id": %d, "category_id": %d, "bbox": [%.9g, %.9g, %.9g, %.9g], "score": %.9g}'


def write_voc(folder: Path, split: str, detections: Detections) -> None:
    """Writes VOC's result files, one for every class: `<folder>/comp4_det_<split>_<class>.txt`.

    A line is `id score x1 y1 x2 y2`, corners 1-based and inclusive. NOTE: the release prints three decimals of a score and one
    of a coordinate; nine digits keep every float32 score, and so the ranking, and corners to 1e-6 px.
    Raises PipelineError for an image id with a space or a class name with a slash, which the format cannot hold.
    """
    for image_id in detections.image_ids:
        if image_id.split() != [image_id]:
            raise PipelineError(f"image id '{image_id}': VOC result files have no room for spaces; rename the image")
    for label, name in enumerate(detections.classes):
        of_class = detections.class_index == label
        corners = to_inclusive(detections.boxes[of_class].astype(np.float64), first=1)
        numbers = np.column_stack([detections.score[of_class], corners]).tolist()
        ids = (detections.image_ids[image] for image in detections.image_index[of_class].tolist())
        with create(_voc_path(folder, split, name)) as file:
            file.writelines((VOC_LINE % (image_id, *row)).encode() for image_id, row in zip(ids, numbers, strict=True))


def read_voc(folder: Path, split: str, image_ids: Sequence[str], classes: Sequence[str]) -> Detections:
    """The detections in VOC's result files, as `write_voc` or a release wrote them.

    Raises PipelineError, naming file and line, for a missing file, a malformed line or an image that is not in `image_ids`.
    """
    position = {image_id: index for index, image_id in enumerate(image_ids)}
    image_index, class_index, numbers = [], [], []
    for label, name in enumerate(classes):
        path = _voc_path(folder, split, name)
        advice = "every class needs a file, if an empty one"
        try:
            lines = read_regular(path, advice).decode().splitlines()
        except UnicodeDecodeError as error:
            raise PipelineError(f"{path}: cannot be read ({error}); {advice}") from error
        for count, line in enumerate(lines, start=1):
            image_id, *values = line.split() or [""]
            if image_id not in position:
                raise PipelineError(f"{path}:{count}: image '{image_id}' is not in the split; detect on the same split")
            try:
                score, x1, y1, x2, y2 = map(float, values)
            except ValueError as error:
                raise PipelineError(f"{path}:{count}: '{line}' is not `id score x1 y1 x2 y2`; correct the line") from error
            image_index.append(position[image_id])
            class_index.append(label)
            numbers.append((score, x1, y1, x2, y2))
    table = np.array(numbers, np.float64).reshape(-1, 5)
    boxes = from_inclusive(table[:, 1:], first=1)
    return Detections(tuple(image_ids), tuple(classes), np.array(image_index), np.array(class_index), table[:, 0], boxes)


def coco_image_ids(image_ids: Sequence[str]) -> list[int]:
    """COCO's integer ids: the names themselves where all are numbers and stay different, otherwise positions from 1."""
    if all(image_id.isascii() and image_id.isdecimal() for image_id in image_ids):
        numbers = [int(image_id) for image_id in image_ids]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(image_ids) + 1))


def write_coco(path: Path, detections: Detections) -> None:
    """Writes COCO's results, a JSON list of image_id, category_id, bbox (x, y, width, height; 0-based) and score, to `path`.

    A category is the class's position from 1, an image as `coco_image_ids` says. Beside `x.json` lies `x.names.json` with
    `images` (id, file_name: the id in the split) and `categories` (id, name), as in a COCO annotation file.
    """
    ids = coco_image_ids(detections.image_ids)
    boxes = detections.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    columns = detections.image_index, detections.class_index, boxes, detections.score
    rows = zip(*(column.tolist() for column in columns), strict=True)
    entries = (COCO_ENTRY % (ids[image], label + 1, *box, score) for image, label, box, score in rows)
    with create(path) as file:
        file.write(f"[{next(entries, '')}".encode())
        file.writelines(f",{entry}".encode() for entry in entries)
        file.write(b"\n]\n")
    names = {
        "images": [{"id": number, "file_name": name} for number, name in zip(ids, detections.image_ids, strict=True)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(detections.classes, start=1)],
    }
    write_file(Path(path).with_suffix(".names.json"), json.dumps(names, indent=1) + "\n")


def _voc_path(folder: Path, split: str, name: str) -> Path:
    if any(sign in name for sign in "/\\\0"):
        raise PipelineError(f"class '{name}': a slash or a NUL cannot be part of a result file's name; rename the class")
    return Path(folder) / f"comp4_det_{split}_{name}.txt"
