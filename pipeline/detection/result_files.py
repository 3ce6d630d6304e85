"""Detections as VOC's and COCO's result files."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from pipeline.boxes import from_inclusive, to_inclusive
from pipeline.datasets.records import CocoNames, Split
from pipeline.datasets.voc_names import voc_file_name, voc_id
from pipeline.detection.detections import Detections
from pipeline.errors import PipelineError
from pipeline.files.reading import read_regular
from pipeline.files.writing import create, write_file

# Nine digits identify every float32.
VOC_LINE = "%s" + 5 * " %.9g" + "\n"
COCO_ENTRY = '\n{"image_id": %s, "category_id": %s, "bbox": [%.9g, %.9g, %.9g, %.9g], "score": %.9g}'


def write_voc(folder: Path, split: str, detections: Detections) -> None:
    """Writes VOC's result files, one for every class: `<folder>/comp4_det_<split>_<class>.txt`.

    A line is `id score x1 y1 x2 y2`, corners 1-based and inclusive. NOTE: the release prints three decimals of a score and one
    of a coordinate; nine digits keep every float32 score, and so the ranking, and corners to 1e-6 px. What the format cannot
    hold is escaped as in URLs: see `voc_names`.
    """
    escaped = [voc_id(image_id) for image_id in detections.image_ids]
    for label, name in enumerate(detections.classes):
        of_class = detections.class_index == label
        corners = to_inclusive(detections.boxes[of_class].astype(np.float64), first=1)
        numbers = np.column_stack([detections.score[of_class], corners]).tolist()
        ids = (escaped[image] for image in detections.image_index[of_class].tolist())
        with create(Path(folder, voc_file_name(split, name))) as file:
            file.writelines((VOC_LINE % (image_id, *row)).encode() for image_id, row in zip(ids, numbers, strict=True))


def read_voc(folder: Path, split: str, image_ids: Sequence[str], classes: Sequence[str]) -> Detections:
    """The detections in VOC's result files, as `write_voc` or a release wrote them: an id that is not escaped is read too.

    Raises PipelineError, naming file and line, for a missing file, a malformed line or an image that is not in `image_ids`.
    """
    position = {image_id: index for index, image_id in enumerate(image_ids)}
    image_index, class_index, numbers = [], [], []
    for label, name in enumerate(classes):
        path = Path(folder, voc_file_name(split, name))
        advice = "every class needs a file, if an empty one"
        try:
            lines = read_regular(path, advice).decode().splitlines()
        except UnicodeDecodeError as error:
            raise PipelineError(f"{path}: cannot be read ({error}); {advice}") from error
        for count, line in enumerate(lines, start=1):
            image_id, *values = line.split() or [""]
            image_id = original if (original := unquote(image_id)) in position else image_id
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


def names_in_coco(split: Split) -> CocoNames:
    """What COCO's files call the images and classes of a split.

    Those of the data set's own COCO file. Without one, ids as `coco_image_ids` says, categories from 1, and the images' files.
    """
    if split.coco:
        return split.coco
    ids = coco_image_ids([image.id for image in split.images])
    files = [_file_name(image.id, image.path) for image in split.images]
    return CocoNames(tuple(ids), tuple(files), tuple(range(1, len(split.classes) + 1)))


def _file_name(id: str, path: str) -> str:
    """An image's file, with the folders that its id has."""
    stem = os.path.splitext(path)[0]
    return path[len(stem) - len(id):] if stem.endswith(id) else path


def write_coco(path: Path, detections: Detections, names: CocoNames) -> None:
    """Writes COCO's results, a JSON list of image_id, category_id, bbox (x, y, width, height; 0-based) and score, to `path`.

    `names` are those of the images and classes of `detections`. Beside `x.json` lies `x.names.json` with `images` (id, file_name)
    and `categories` (id, name), as in a COCO annotation file.
    """
    images, categories = ([json.dumps(id) for id in ids] for ids in (names.image_ids, names.category_ids))
    boxes = detections.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    columns = detections.image_index, detections.class_index, boxes, detections.score
    rows = zip(*(column.tolist() for column in columns), strict=True)
    entries = (COCO_ENTRY % (images[image], categories[label], *box, score) for image, label, box, score in rows)
    with create(path) as file:
        file.write(f"[{next(entries, '')}".encode())
        file.writelines(f",{entry}".encode() for entry in entries)
        file.write(b"\n]\n")
    listed = {
        "images": [{"id": id, "file_name": name} for id, name in zip(names.image_ids, names.file_names, strict=True)],
        "categories": [{"id": id, "name": name} for id, name in zip(names.category_ids, detections.classes, strict=True)],
    }
    write_file(Path(path).with_suffix(".names.json"), json.dumps(listed, indent=1) + "\n")
