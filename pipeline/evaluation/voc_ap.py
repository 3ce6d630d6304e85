"""PASCAL VOC average precision (Everingham et al. 2010, section 4.2), as `voc_eval.py` of rbgirshick/py-faster-rcnn computes it.

A detection belongs to the object of its class that it overlaps most. It is a true positive when that IoU is above the
threshold (not equal to it: the MATLAB devkit differs there) and the object has not been found by a better-scored detection;
finding it again is a false positive. An object marked difficult counts nowhere, nor does a detection that belongs to it; nor do
regions to ignore, such as crowds, and their detections.

Ranking: by falling score over the split; equal scores by image, then in the order of `Detections`.

Shape shorthand: M images, C classes, K detections, D of them of one class.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from pipeline.datasets.records import NO_CLASS, ImageRecord
from pipeline.detection.detections import Detections
from pipeline.errors import PipelineError
from pipeline.matching import match_boxes

FALSE_POSITIVE, TRUE_POSITIVE, IGNORED = 0, 1, 2
RECALL_POINTS = np.arange(0, 1.1, 0.1)  # voc_eval.py: with rounding, as 0.30000000000000004, which a recall of 0.3 does not reach


@dataclass(frozen=True, eq=False)
class Matches:
    """What each detection is.

    `outcome` int8 [K] is FALSE_POSITIVE, TRUE_POSITIVE or IGNORED; `overlap` float64 [K] the largest IoU with an object of the
    detection's class in its image, 0 without one; `object_index` int32 [K] that object's row in the image's record where the
    IoU is above `iou_threshold`, else -1. `num_positives` int64 [M x C] counts the objects that are `counted`.
    """

    detections: Detections
    iou_threshold: float
    outcome: np.ndarray
    overlap: np.ndarray
    object_index: np.ndarray
    num_positives: np.ndarray

    def ranking(self, label: int) -> np.ndarray:
        """Indices [D] of the detections of class `label`, best first."""
        of_class = np.flatnonzero(self.detections.class_index == label)
        return of_class[np.argsort(-self.detections.score[of_class], kind="stable")]


@dataclass(frozen=True, eq=False)
class ClassResult:
    """One class: AP by the 11-point and the area metric (NaN without objects), and the curve after each detection [D]."""

    name: str
    ap_07: float
    ap_area: float
    num_positives: int
    num_detections: int
    recall: np.ndarray
    precision: np.ndarray


@dataclass(frozen=True, eq=False)
class Result:
    """AP of every class; the means leave out classes that have no object in the split."""

    classes: tuple[ClassResult, ...]
    matches: Matches

    @property
    def mean_ap_07(self) -> float:
        return _mean([result.ap_07 for result in self.classes])

    @property
    def mean_ap_area(self) -> float:
        return _mean([result.ap_area for result in self.classes])

    @property
    def without_objects(self) -> tuple[str, ...]:
        return tuple(result.name for result in self.classes if result.num_positives == 0)

    def to_json(self) -> dict:
        """The figures, an undefined one as null. Curves hold their points at true positives alone: they determine both APs."""
        return {
            "iou_threshold": self.matches.iou_threshold, "map_07": json_number(self.mean_ap_07),
            "map_area": json_number(self.mean_ap_area), "without_objects": list(self.without_objects),
            "classes": {result.name: _class_json(result) for result in self.classes},
        }


def check_split(detections: Detections, images: Sequence[ImageRecord], classes: Sequence[str]) -> None:
    """Raises PipelineError when the detections' images or classes are not `images` and `classes`, in this order."""
    _check_same("images", detections.image_ids, [image.id for image in images])
    _check_same("classes", detections.classes, classes)


def match_detections(
    detections: Detections, images: Sequence[ImageRecord], classes: Sequence[str], iou_threshold: float = 0.5
) -> Matches:
    """Decides for every detection whether it is a true or a false positive, or to be ignored.

    Raises as `check_split`.
    """
    check_split(detections, images, classes)
    outcome = np.full(len(detections), FALSE_POSITIVE, np.int8)
    overlap = np.zeros(len(detections))
    object_index = np.full(len(detections), -1, np.int32)
    # Detections are sorted by image, then class: one (image, class) is a slice.
    group = detections.image_index.astype(np.int64) * len(classes) + detections.class_index
    num_positives = np.zeros((len(images), len(classes)), np.int64)
    for index, image in enumerate(images):
        for label in np.unique(image.labels[image.labels != NO_CLASS]):
            objects = np.flatnonzero(image.labels == label)
            num_positives[index, label] = np.count_nonzero(image.counted[objects])
            key = index * len(classes) + label
            start, stop = np.searchsorted(group, [key, key + 1])
            if start < stop:
                overlaps = match_boxes(detections.boxes[start:stop], image.boxes[objects])
                nearest, is_hit, here = objects[overlaps.nearest], overlaps.above(iou_threshold), slice(start, stop)
                overlap[here] = overlaps.largest
                outcome[here] = _outcomes(nearest, is_hit, image.counted)
                object_index[here] = np.where(is_hit, nearest, -1)
    return Matches(detections, float(iou_threshold), outcome, overlap, object_index, num_positives)


def average_precision(recall: np.ndarray, precision: np.ndarray, metric: str) -> np.ndarray:
    """AP of precision-recall curves [... x D], by rising recall: float64 [...]; 0 for an empty curve.

    `metric` "07" averages the largest precision at 11 recalls or beyond (VOC to 2009); "area" is the area under the curve after
    every precision is raised to the largest one at its recall or beyond (VOC from 2010). Source: `voc_ap` in `voc_eval.py`.
    """
    ends = np.zeros((*recall.shape[:-1], 1))
    recall = np.concatenate([ends, recall, ends + 1], axis=-1)
    precision = np.concatenate([ends, precision, ends], axis=-1)
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    if metric == "area":
        return np.sum(np.diff(recall, axis=-1) * envelope[..., 1:], axis=-1)
    if metric == "07":
        reached = (np.where(recall >= point, envelope, 0).max(axis=-1) for point in RECALL_POINTS)
        return sum(reached) / len(RECALL_POINTS)
    raise PipelineError(f"AP metric '{metric}': expected '07' (11 points) or 'area'")


def evaluate(
    detections: Detections, images: Sequence[ImageRecord], classes: Sequence[str], iou_threshold: float = 0.5
) -> Result:
    """AP of each class and their means. Raises as `match_detections`.

    NOTE: the release fails for a class without objects or detections; here its AP is NaN, or 0.
    """
    matches = match_detections(detections, images, classes, iou_threshold)
    return Result(tuple(_class_result(matches, label) for label in range(len(classes))), matches)


def _outcomes(nearest: np.ndarray, hit: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Outcomes of one image's and class's detections, best first; `nearest` [D] index the image's objects, `counted` too."""
    first = np.zeros(len(hit), bool)
    hit_objects, position = np.unique(nearest[hit], return_index=True)
    first[np.flatnonzero(hit)[position]] = counted[hit_objects]
    return np.select([first, hit & ~counted[nearest]], [TRUE_POSITIVE, IGNORED], FALSE_POSITIVE)


def _class_result(matches: Matches, label: int) -> ClassResult:
    outcome = matches.outcome[matches.ranking(label)]
    true_positives, false_positives = np.cumsum(outcome == TRUE_POSITIVE), np.cumsum(outcome == FALSE_POSITIVE)
    # While only ignored detections have come, 0 / 1: precision 0.
    precision = true_positives / np.maximum(true_positives + false_positives, 1)
    num_positives = int(matches.num_positives[:, label].sum())
    recall = true_positives / num_positives if num_positives else np.full(len(outcome), np.nan)
    ap_07, ap_area = (
        float(average_precision(recall, precision, metric)) if num_positives else np.nan for metric in ("07", "area"))
    name = matches.detections.classes[label]
    return ClassResult(name, ap_07, ap_area, num_positives, len(outcome), recall, precision)


def _class_json(result: ClassResult) -> dict:
    rises = np.diff(result.recall, prepend=0) > 0
    return {
        "ap_07": json_number(result.ap_07), "ap_area": json_number(result.ap_area),
        "num_positives": result.num_positives, "num_detections": result.num_detections,
        "recall": result.recall[rises].tolist(), "precision": result.precision[rises].tolist(),
    }


def _check_same(what: str, given: Sequence[str], expected: Sequence[str]) -> None:
    if tuple(given) != tuple(expected):
        pairs = zip_longest(given, expected, fillvalue="none")
        place, (name, expected_name) = next((place, pair) for place, pair in enumerate(pairs) if pair[0] != pair[1])
        raise PipelineError(
            f"detections of {len(given)} {what} against a split of {len(expected)}: number {place + 1} is {name}, "
            f"expected {expected_name}; detect again on this split")


def _mean(values: list[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def json_number(value: float) -> float | None:
    return None if math.isnan(value) else value
