"""Which classes a detector takes for each other: the confusion matrix, with the background as one more class.

A row is the class of an object, a column that of a detection; the last row and column are the background. Each object that is
counted and each detection that reaches its class's operating point is in exactly one cell. The matching is one to one:

1. A true positive of VOC's evaluation and its object share a cell of the diagonal.
2. Of the other detections and the objects that are left, the pairs of different classes with an IoU above the evaluation's
   threshold are taken by falling IoU. Each detection and each object is taken once. Of equal IoUs the image's first detection
   comes first, then its first object. They share the cell of their two classes: the object was taken for another class.
3. A detection that is left is a false alarm, in the row of the background: also one that finds an object again.
4. An object that is left is missed, in the column of the background.

So the sum of a class's row is the number of its objects, and the sum of its column that of its detections. Difficult objects and
regions to ignore have no row, and detections that VOC's evaluation ignores no column.

Shape shorthand: C classes, D detections of an image, n objects of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.records import ImageRecord
from pipeline.evaluation.operating_points import counted, operating_points
from pipeline.evaluation.voc_ap import FALSE_POSITIVE, TRUE_POSITIVE, Matches
from pipeline.matching import match_boxes
from pipeline.tables import Cell, format_table

MOST_COLUMNS = 20  # a wider matrix fits on no terminal
MOST_PAIRS = 10
BACKGROUND = "background"


@dataclass(frozen=True, eq=False)
class Confusion:
    """`matrix` int64 [(C + 1) x (C + 1)] of `classes`, at the operating points `scores` [C] (inf: no detection counts)."""

    classes: tuple[str, ...]
    scores: np.ndarray
    matrix: np.ndarray

    def to_json(self) -> dict:
        scores = [None if np.isinf(score) else float(score) for score in self.scores]
        return {"classes": [*self.classes, BACKGROUND], "scores": scores, "matrix": self.matrix.tolist()}

    @classmethod
    def from_json(cls, data: dict) -> "Confusion":
        scores = np.array([np.inf if score is None else score for score in data["scores"]])
        return cls(tuple(data["classes"][:-1]), scores, np.array(data["matrix"], np.int64))


def confusion_matrix(matches: Matches, images: Sequence[ImageRecord], points: np.ndarray | None = None) -> Confusion:
    """The confusions behind `match_detections` in the same `images`, at the `points` [C]: by default those with the best F1."""
    detections = matches.detections
    points = operating_points(matches) if points is None else points
    background = len(detections.classes)
    matrix = np.zeros((background + 1, background + 1), np.int64)
    chosen = counted(matches, points)
    ends = np.searchsorted(detections.image_index, np.arange(len(images) + 1))
    for image, start, end in zip(images, ends[:-1], ends[1:], strict=True):
        rows = start + np.flatnonzero(chosen[start:end])
        # 1. True positives.
        hits = rows[matches.outcome[rows] == TRUE_POSITIVE]
        left = image.counted.copy()
        left[matches.object_index[hits]] = False
        _add(np.einsum("ii->i", matrix)[:background], detections.class_index[hits])
        # 2. Pairs of different classes.
        wrong, objects = rows[matches.outcome[rows] == FALSE_POSITIVE], np.flatnonzero(left)
        predicted, given = detections.class_index[wrong], image.labels[objects]
        overlaps = match_boxes(detections.boxes[wrong], image.boxes[objects]).iou
        pairs = _pairs(np.where(predicted[:, None] == given, 0, overlaps), matches.iou_threshold)
        for detection, place in pairs:
            matrix[given[place], predicted[detection]] += 1
        # 3. False alarms. 4. Misses.
        of_pairs = np.array(pairs, np.int64).reshape(-1, 2).T
        _add(matrix[background, :-1], np.delete(predicted, of_pairs[0]))
        _add(matrix[:-1, background], np.delete(given, of_pairs[1]))
    return Confusion(detections.classes, points, matrix)


def _add(counts: np.ndarray, labels: np.ndarray) -> None:
    """Counts `labels` in `counts` [C], a view into the matrix."""
    counts += np.bincount(labels, minlength=len(counts))


def _pairs(overlaps: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Pairs (detection, object) with `overlaps` [D x n] above `threshold`, by falling overlap, each detection and object once."""
    rows, columns = np.nonzero(overlaps > threshold)
    pairs: list[tuple[int, int]] = []
    taken: tuple[set[int], set[int]] = set(), set()
    for place in np.argsort(-overlaps[rows, columns], kind="stable"):
        row, column = int(rows[place]), int(columns[place])
        if row not in taken[0] and column not in taken[1]:
            pairs.append((row, column))
            taken[0].add(row)
            taken[1].add(column)
    return pairs


def frequent(confusion: Confusion, number: int = MOST_PAIRS) -> list[tuple[str, str, int]]:
    """The most frequent confusions of two classes: the object's class, the detection's, and how often; at most `number`."""
    between = confusion.matrix[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    order = np.argsort(-between, axis=None, kind="stable")[:number]
    places = zip(*np.unravel_index(order, between.shape), strict=True)
    return [(confusion.classes[row], confusion.classes[column], int(between[row, column]))
            for row, column in places if between[row, column]]


def confusion_table(confusion: Confusion) -> str:
    """Counts by class as text; for at most MOST_COLUMNS classes the matrix too; and the most frequent confusions."""
    matrix, text = confusion.matrix, []
    rows: list[list[Cell]] = []
    for label, name in enumerate(confusion.classes):
        found, missed, alarms = (int(matrix[place]) for place in ((label, label), (label, -1), (-1, label)))
        objects, detections = int(matrix[label].sum()), int(matrix[:, label].sum())
        score = None if np.isinf(confusion.scores[label]) else float(confusion.scores[label])
        of_objects = [objects, found, objects - found - missed, missed]
        rows.append([name, score, *of_objects, detections, detections - found - alarms, alarms])
    headers = ["class", "from score", "objects", "found", "confused", "missed", "detections", "on another class", "false alarms"]
    text.append(format_table(headers, rows, decimals=2))
    if len(confusion.classes) <= MOST_COLUMNS:
        numbers = [f"{number}" for number in range(1, len(matrix))]
        names = [*(f"{number} {name}" for number, name in zip(numbers, confusion.classes)), BACKGROUND]
        cells: list[list[Cell]] = [[name, *row] for name, row in zip(names, matrix.tolist(), strict=True)]
        text.append(format_table(["objects (rows), detections (columns)", *numbers, BACKGROUND], cells))
    if pairs := frequent(confusion):
        lines: list[list[Cell]] = [[name, taken_for, count] for name, taken_for, count in pairs]
        text.append(format_table(["most frequent: object of", "taken for", "times"], lines))
    return "\n\n".join(text)
