"""Which test images show what a detector does, and what it got right and wrong there.

A detector is shown at its best: each class's detections count from that score on at which its F1, the harmonic mean of precision
and recall, is largest.

Shape shorthand: M images, C classes, K detections.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.records import ImageRecord
from pipeline.evaluation.operating_points import counted
from pipeline.evaluation.voc_ap import FALSE_POSITIVE, TRUE_POSITIVE, Matches
from pipeline.report.embedding import jpeg_uri

HIT, FALSE_ALARM, MISS = "hit", "false alarm", "miss"
LABELLED = 4  # false alarms per image


@dataclass(frozen=True)
class Mark:
    """One box to draw: a detection with its score and its IoU with an object of its class, or an object that was missed.

    Only the false alarms with the highest scores are `labelled`: many names would cover the image.
    """

    kind: str
    box: tuple[float, ...]
    name: str
    score: float | None = None
    overlap: float | None = None
    labelled: bool = True


@dataclass(frozen=True)
class Picture:
    """An image of the album: `symbol` is the id under which the page holds it, width and height are the image's in pixels."""

    symbol: str
    name: str
    width: int
    height: int
    uri: str


class Album:
    """The images that a page shows, each held once however often it is shown, `longest_side` pixels at most.

    `read` reads those that bring no reader of their own.
    """

    def __init__(self, read: Callable[[ImageRecord], np.ndarray], longest_side: int):
        self.read, self.longest_side = read, longest_side
        self.pictures: dict[tuple[str, str], Picture] = {}

    def add(self, record: ImageRecord, read: Callable[[ImageRecord], np.ndarray] | None = None) -> Picture:
        key = record.id, record.digest  # two data sets may have equal ids
        if key not in self.pictures:
            symbol, uri = f"image-{len(self.pictures)}", jpeg_uri((read or self.read)(record), self.longest_side)
            self.pictures[key] = Picture(symbol, record.id, record.width, record.height, uri)
        return self.pictures[key]


def choose_images(matches: Matches, number: int) -> list[int]:
    """At most `number` images, evenly spread from the one whose best detection has the highest score to the lowest."""
    best = np.full(len(matches.num_positives), -np.inf)
    np.maximum.at(best, matches.detections.image_index, matches.detections.score)
    order = np.argsort(-best, kind="stable")
    places = np.linspace(0, len(order) - 1, min(number, len(order)))
    return order[places.round().astype(int)].tolist()


def marks_of(matches: Matches, images: Sequence[ImageRecord], number: int, points: np.ndarray) -> list[Mark]:
    """The misses, false alarms and hits in image `number` at the operating points [C], to be drawn in this order."""
    detections, image = matches.detections, images[number]
    rows = np.flatnonzero((detections.image_index == number) & counted(matches, points))
    hits = rows[matches.outcome[rows] == TRUE_POSITIVE]
    found_objects = set(matches.object_index[hits].tolist())
    missed = [place for place in range(len(image.labels)) if place not in found_objects and image.counted[place]]
    marks = [Mark(MISS, tuple(image.boxes[place].tolist()), detections.classes[image.labels[place]]) for place in missed]
    for kind, chosen in (FALSE_ALARM, rows[matches.outcome[rows] == FALSE_POSITIVE]), (HIT, hits):
        for rank, row in reversed(list(enumerate(chosen[np.argsort(-detections.score[chosen], kind="stable")]))):
            name = detections.classes[detections.class_index[row]]
            about = float(detections.score[row]), float(matches.overlap[row]), kind == HIT or rank < LABELLED
            marks.append(Mark(kind, tuple(detections.boxes[row].tolist()), name, *about))
    return marks
