"""How well proposals cover the objects: recall and mean average best overlap (Uijlings et al. 2013, section 5.1).

The caller leaves out objects that do not count, such as difficult ones and regions to ignore.
Shape shorthand: an image has n objects and N proposals; all images O objects; T thresholds, K numbers of boxes.
"""

import math
from typing import NamedTuple

import numpy as np

from pipeline.boxes import iou
from pipeline.tables import format_table

# IoU at which recall is measured; their mean is the average recall (Hosang et al. 2016, section 5; COCO's ten thresholds).
THRESHOLDS = np.linspace(0.5, 0.95, 10)
# Numbers of boxes per image at which the curve is measured, up to the largest number of boxes.
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 10000)


class Quality(NamedTuple):
    """How well the first 1, 2, 5, ... proposals of each image cover the objects; the last row is for all of them.

    `counts` int [K], `boxes_per_image` [K] (images with fewer boxes give what they have), `recalls` [K x T] at THRESHOLDS,
    `average_recall` [K], `best_overlap` [K x C] the mean of each class's objects, `mabo` [K] its mean over classes; NaN
    without objects.
    """

    counts: np.ndarray
    boxes_per_image: np.ndarray
    recalls: np.ndarray
    average_recall: np.ndarray
    best_overlap: np.ndarray
    mabo: np.ndarray

    def to_json(self) -> dict:
        """All of it as lists, with None for NaN."""
        values = {name: _without_nan(value.tolist()) for name, value in self._asdict().items()}
        return {"iou": THRESHOLDS.round(2).tolist(), **values}


def _without_nan(values):
    if isinstance(values, list):
        return [_without_nan(value) for value in values]
    return None if math.isnan(values) else values


def best_overlaps_of_first(boxes: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """For each object in `truth` [n x 4] its largest IoU with any of the first `counts` [K] of `boxes` [N x 4]: [n x K]."""
    overlap = np.zeros((len(truth), len(boxes) + 1))
    overlap[:, 1:] = iou(truth, boxes)
    return np.maximum.accumulate(overlap, axis=1)[:, np.minimum(counts, len(boxes))]


def measure_quality(
    boxes: list[np.ndarray], truth: list[np.ndarray], labels: list[np.ndarray], num_classes: int
) -> Quality:
    """How well the proposals `boxes` [N x 4] cover the objects `truth` [n x 4], one array per image.

    `labels` [n] are the objects' classes, 0 to `num_classes` - 1.
    """
    numbers = np.array([len(image) for image in boxes], int)
    most = int(numbers.max(initial=0))
    counts = np.array([*(count for count in COUNTS if count < most), most])
    best = np.concatenate([np.zeros((0, len(counts))), *(
        best_overlaps_of_first(*image, counts) for image in zip(boxes, truth, strict=True)
    )])
    label = np.concatenate([np.zeros(0, np.int64), *labels])
    recalls = np.stack([_mean(best >= threshold) for threshold in THRESHOLDS], axis=1)
    by_class = np.stack([_mean(best[label == number]) for number in range(num_classes)], axis=1)
    present = np.isin(np.arange(num_classes), label)
    mabo = by_class[:, present].mean(axis=1) if present.any() else np.full(len(counts), np.nan)
    taken = np.minimum(numbers[:, None], counts).mean(axis=0) if len(numbers) else np.zeros(len(counts))
    return Quality(counts, taken, recalls, recalls.mean(axis=1), by_class, mabo)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over objects [O x K]; NaN without any."""
    return values.mean(axis=0) if len(values) else np.full(values.shape[1], np.nan)


def proposal_table(quality: Quality) -> str:
    """Recall at every other threshold, average recall and MABO for the first 1, 2, 5, ... proposals of an image."""
    headers = ["boxes an image", *(f"recall {threshold:.2f}" for threshold in THRESHOLDS[::2]), "average recall", "MABO"]
    columns = (quality.boxes_per_image.round().astype(int), *quality.recalls.T[::2], quality.average_recall, quality.mabo)
    return format_table(headers, list(zip(*(column.tolist() for column in columns), strict=True)), decimals=3)
