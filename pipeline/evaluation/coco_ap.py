"""COCO's average precision and recall (Lin et al. 2014; cocodataset.org, "Detection evaluation"), as pycocotools computes them.

Beside VOC's AP at one IoU, this is the mean over the IoUs 0.5, 0.55, ..., 0.95, and the same for small (area up to 32 x 32
pixels), medium (to 96 x 96) and large objects. What differs from `voc_ap` even at one IoU:

- AP is the mean of the largest precision at the recalls 0, 0.01, ..., 1 or beyond: within 0.01 of the area under that curve.
- An IoU of exactly the threshold is a hit.
- A detection takes the object that it overlaps most among those not yet found; VOC calls it wrong if its best one is found.
- Regions to ignore are crowds here, and so are objects marked difficult, since crowds are all that pycocotools can leave out: a
  detection that hits no other object is ignored where the crowd holds the threshold's share *of the detection*, so that small
  boxes inside it do not count either, however many.
- Only the best 100 detections per class and image count.

NOTE: records have no outlines, so that an object's size is its box's area; COCO takes the outline's, which is smaller. AP by size
is therefore not COCO's published one; all else is.
"""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.boxes import area
from pipeline.datasets.records import ImageRecord
from pipeline.detection.detections import Detections
from pipeline.evaluation.voc_ap import check_split, json_number
from pipeline.tables import format_table

# In the order of `COCOeval.stats`, with their usual names. AR1, AR10 and AR100 are recalls, mean over the IoUs, of the best 1, 10
# and 100 detections per class and image.
METRICS = {
    "ap": "AP", "ap_50": "AP50", "ap_75": "AP75", "ap_small": "AP small", "ap_medium": "medium", "ap_large": "large",
    "ar_1": "AR1", "ar_10": "AR10", "ar_100": "AR100", "ar_small": "AR small", "ar_medium": "medium", "ar_large": "large",
}
UNDEFINED = -1
MOST = 100  # detections per class and image: the last of `maxDets` of pycocotools


@dataclass(frozen=True)
class CocoResult:
    """`METRICS`, means over the classes that have objects, and `classes`, the AP (IoU 0.5 to 0.95) of each; undefined: NaN."""

    metrics: dict[str, float]
    classes: dict[str, float]

    def to_json(self) -> dict:
        parts = {"metrics": self.metrics, "classes": self.classes}
        return {part: {name: json_number(value) for name, value in values.items()} for part, values in parts.items()}


def evaluate_coco(detections: Detections, images: Sequence[ImageRecord], classes: Sequence[str]) -> CocoResult:
    """COCO's metrics of detections in `images`. Raises PipelineError when the detections are of other images or classes."""
    check_split(detections, images, classes)
    truth = _annotations(
        np.repeat(np.arange(len(images)), [len(image.boxes) for image in images]),
        np.concatenate([np.zeros(0, np.int64), *(image.labels for image in images)]),
        np.concatenate([np.zeros((0, 4)), *(image.boxes for image in images)]),
        iscrowd=np.concatenate([np.zeros(0, bool), *(~image.counted for image in images)]).astype(int),
    )
    parts = []
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and its results
        objects = _dataset(images, classes, truth)
        # Class by class: a detection takes a kilobyte while it is evaluated.
        for label in range(len(classes)):
            rows = detections.class_index == label
            columns = (getattr(detections, name)[rows] for name in ("image_index", "class_index", "boxes"))
            results = _annotations(*columns, score=detections.score[rows])
            evaluation = COCOeval(objects, _dataset(images, classes, results), iouType="bbox")
            evaluation.params.catIds = [label]
            evaluation.evaluate()
            evaluation.accumulate()
            parts.append(evaluation.eval)
        for name, axis in ("precision", 2), ("recall", 1):
            evaluation.eval[name] = np.concatenate([part[name] for part in parts], axis)
        evaluation.summarize()
    # Over IoU thresholds, recalls and classes; of objects of every size and the best 100 detections.
    by_class = evaluation.eval["precision"][:, :, :, 0, -1].mean(axis=(0, 1))
    named = zip(METRICS, evaluation.stats), zip(classes, by_class)
    return CocoResult(*({name: math.nan if value == UNDEFINED else float(value) for name, value in part} for part in named))


def too_crowded(images: Sequence[ImageRecord], num_classes: int) -> tuple[int, int]:
    """How many images have more objects of a class than the MOST detections that count, and how many objects are too many."""
    surplus = [
        np.maximum(np.bincount(image.labels[image.counted], minlength=num_classes) - MOST, 0).sum() for image in images
    ]
    return int(np.count_nonzero(surplus)), int(sum(surplus))


def coco_table(result: CocoResult) -> str:
    """The metrics in percent, one line."""
    return format_table(["COCO", *METRICS.values()], [["mean", *(100 * result.metrics[name] for name in METRICS)]])


def _annotations(image_index: np.ndarray, labels: np.ndarray, boxes: np.ndarray, **columns: np.ndarray) -> list[dict]:
    """COCO annotations. Ids count from 1, since pycocotools takes 0 for no match; images and categories are their positions."""
    boxes = np.asarray(boxes, np.float64)
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    columns = {"image_id": image_index, "category_id": labels, "bbox": sides, "area": area(boxes), **columns}
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [{"id": id, "iscrowd": 0, **dict(zip(columns, row, strict=True))} for id, row in enumerate(rows, 1)]


def _dataset(images: Sequence[ImageRecord], classes: Sequence[str], annotations: list[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": index} for index in range(len(images))], "annotations": annotations,
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes)],
    }
    coco.createIndex()
    return coco
