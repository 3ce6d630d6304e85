"""Where a detector errs: false positives by kind and recall by object size (Hoiem et al., ECCV 2012, sections 2 and 3).

A false positive of class j is, by the first of these that holds,

1. `localisation`: its IoU with an object of class j is 0.1 or more, so that it is misplaced or finds an object again;
2. `similar`: its IoU with an object of a class similar to j is 0.1 or more;
3. `other`: the same with an object of any other class;
4. `background`.

They are counted among the N_j best detections of class j, which has N_j objects: a perfect detector has no false positive there.
Difficult objects and regions to ignore are not among the N_j and are never missed, but a false positive may lie on one. NOTE:
ignored detections have no rank here; the authors' analyzeFalsePositives.m ranks them as correct.

An object's size is its place among the areas of its class: XS are the smallest tenth, S the next 20 %, M the middle 40 %, L the
next 20 %, XL the largest tenth. Recall is that of all detections, whatever their scores.

Shape shorthand: C classes, K detections, D of them in one image, n objects of it.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from pipeline.boxes import area, iou
from pipeline.datasets.records import NO_CLASS, ImageRecord
from pipeline.errors import PipelineError
from pipeline.evaluation.voc_ap import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, Matches, json_number

KINDS = ("localisation", "similar", "other", "background")
NO_ERROR = -1
MIN_OVERLAP = 0.1
SIZES = ("XS", "S", "M", "L", "XL")
SIZE_LIMITS = (0.1, 0.3, 0.7, 0.9)
# Section 2 of the paper, in VOC's names: vehicles, animals with people, furniture, and what flies.
VOC_SIMILAR = (
    ("aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"),
    ("bird", "cat", "cow", "dog", "horse", "person", "sheep"),
    ("chair", "diningtable", "sofa"),
    ("aeroplane", "bird"),
)


@dataclass(frozen=True)
class ClassErrors:
    """One class: true and, by kind, false positives among its `num_objects` best detections; objects, and those found, by size.

    `recall` by size is NaN without objects.
    """

    num_objects: int
    true_positives: int
    false_positives: dict[str, int]
    objects: dict[str, int]
    found: dict[str, int]

    @property
    def recall(self) -> dict[str, float]:
        return {size: self.found[size] / number if number else math.nan for size, number in self.objects.items()}

    def to_json(self) -> dict:
        return {**asdict(self), "recall": {size: json_number(recall) for size, recall in self.recall.items()}}


@dataclass(frozen=True)
class Errors:
    """The errors of each class by its name, and the groups of similar classes that were used."""

    classes: dict[str, ClassErrors]
    similar: tuple[tuple[str, ...], ...]

    def to_json(self) -> dict:
        classes = {name: errors.to_json() for name, errors in self.classes.items()}
        return {"similar": [list(group) for group in self.similar], "classes": classes}


def similar_groups(classes: Sequence[str], given: Sequence[str] = ()) -> tuple[tuple[str, ...], ...]:
    """Groups of similar classes: each of `given` names some of `classes` with + between them; VOC's groups when it is empty.

    VOC's are cut down to `classes`; other classes have none. Raises PipelineError for a group with an unknown class.
    """
    groups = tuple(tuple(group.split("+")) for group in given)
    if unknown := [name for group in groups for name in group if name not in classes]:
        raise PipelineError(f"similar classes: {', '.join(unknown)}: no such class; there are {', '.join(classes)}")
    if not groups:
        groups = tuple(tuple(name for name in group if name in classes) for group in VOC_SIMILAR)
    return tuple(group for group in groups if len(group) > 1)


def analyse_errors(matches: Matches, images: Sequence[ImageRecord], similar: Sequence[Sequence[str]]) -> Errors:
    """The errors behind `match_detections` in the same `images`; classes in one group of `similar` are similar to each other."""
    classes = matches.detections.classes
    kinds = false_positive_kinds(matches, images, similar)
    labels, areas, was_found = _objects(matches, images)
    errors = {}
    for label, name in enumerate(classes):
        ranking, of_class = matches.ranking(label), labels == label
        best = ranking[matches.outcome[ranking] != IGNORED][: of_class.sum()]
        sizes = size_of(areas[of_class])
        errors[name] = ClassErrors(
            int(of_class.sum()), int((matches.outcome[best] == TRUE_POSITIVE).sum()), _counts(KINDS, kinds[best]),
            _counts(SIZES, sizes), _counts(SIZES, sizes[was_found[of_class]]),
        )
    return Errors(errors, tuple(map(tuple, similar)))


def false_positive_kinds(matches: Matches, images: Sequence[ImageRecord], similar: Sequence[Sequence[str]]) -> np.ndarray:
    """The kind of each detection, int [K]: its position in `KINDS`, or NO_ERROR where it is not a false positive."""
    detections = matches.detections
    members = [np.isin(detections.classes, group) for group in similar]
    alike = np.zeros(2 * [len(detections.classes)], bool)
    for is_member in members:
        alike |= np.outer(is_member, is_member)
    kinds = np.full(len(detections), NO_ERROR)
    wrong = np.flatnonzero(matches.outcome == FALSE_POSITIVE)
    ends = np.searchsorted(detections.image_index[wrong], np.arange(1, len(images)))
    for image, rows in zip(images, np.split(wrong, ends)):
        image, label = image.select(image.labels != NO_CLASS), detections.class_index[rows][:, None]
        near = iou(detections.boxes[rows], image.boxes) >= MIN_OVERLAP  # [D x n]
        lies_on = near & (label == image.labels), near & alike[label, image.labels], near
        kinds[rows] = np.select([on_object.any(axis=1) for on_object in lies_on], range(len(lies_on)), len(lies_on))
    return kinds


def size_of(areas: np.ndarray) -> np.ndarray:
    """The size of each object of a class by its area, int [n]: its position in `SIZES`. Equal areas have the same size."""
    ordered = np.sort(areas)
    places = np.searchsorted(ordered, areas, "left") + np.searchsorted(ordered, areas, "right")
    return np.searchsorted(SIZE_LIMITS, places / (2 * max(1, len(areas))))


def _objects(matches: Matches, images: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, areas and whether they were found of all objects that are `counted`."""
    first = np.cumsum([0, *(len(image.labels) for image in images)])
    was_found = np.zeros(first[-1], bool)
    true = np.flatnonzero(matches.outcome == TRUE_POSITIVE)
    was_found[first[matches.detections.image_index[true]] + matches.object_index[true]] = True
    counted = np.concatenate([np.zeros(0, bool), *(image.counted for image in images)])
    labels = np.concatenate([np.zeros(0, np.int64), *(image.labels for image in images)])
    areas = area(np.concatenate([np.zeros((0, 4)), *(image.boxes for image in images)]))
    return labels[counted], areas[counted], was_found[counted]


def _counts(names: Sequence[str], positions: np.ndarray) -> dict[str, int]:
    return {name: int((positions == position).sum()) for position, name in enumerate(names)}
