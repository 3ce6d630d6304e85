"""The regions of one image with the scores of all classes, filtered by score and IoU.

Shape shorthand: n regions, C classes.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.feature_store import PROPOSAL, Annotations, FeatureStore
from pipeline.rcnn.svm import LinearSVMs


@dataclass(frozen=True)
class Filter:
    """Which regions are listed. Scores and IoU are those of class number `label`, or the largest of all classes if it is None."""

    label: int | None = None
    least_score: float = -np.inf
    least_overlap: float = 0.0
    most_overlap: float = 1.0
    count: int = 50


@dataclass(frozen=True)
class ImageRegions:
    """The regions of an image that pass a filter, the highest score first.

    `rows` [n] are their numbers in the image, `scores` [n x C] those of the SVMs, or None without SVMs. `passed` is how many pass
    the filter; `rows` may have fewer.
    """

    annotations: Annotations
    rows: np.ndarray
    scores: np.ndarray | None
    passed: int


def image_regions(store: FeatureStore, image: int, svms: LinearSVMs | None, wanted: Filter) -> ImageRegions:
    """Those regions of image number `image` that are `wanted`. Without SVMs they are ranked by IoU, and no score is asked for."""
    annotations = store.annotations(image)
    overlaps = np.maximum(annotations.overlaps, 0)
    of_class = overlaps.max(axis=1, initial=0) if wanted.label is None else overlaps[:, wanted.label]
    passes = (of_class >= wanted.least_overlap) & (of_class <= wanted.most_overlap)
    values, scores = of_class, None
    if svms is not None:
        scores = svms.score(store.read(image).features)
        values = scores.max(axis=1, initial=-np.inf) if wanted.label is None else scores[:, wanted.label]
        passes &= values >= wanted.least_score
    order = np.argsort(-values, kind="stable")
    rows = order[passes[order]]
    shown = rows[: wanted.count]
    return ImageRegions(annotations, shown, None if scores is None else scores[shown], len(rows))


def description(annotations: Annotations, row: int, classes: tuple[str, ...]) -> dict:
    """What is known of one region, for a page: its box, its kind and the object that it overlaps most."""
    overlaps, label = annotations.overlaps[row], int(annotations.gt_labels[row])
    nearest = int(overlaps.argmax()) if len(overlaps) else 0
    touches = len(overlaps) > 0 and overlaps[nearest] > 0
    return {
        "row": int(row), "box": annotations.boxes[row].tolist(), "object": None if label == PROPOSAL else classes[label],
        "difficult": bool(annotations.difficult[row]), "nearest": classes[nearest] if touches else None,
        "overlap": float(overlaps[nearest]) if touches else 0.0,
    }
