"""The objects of a class that its SVM scores lowest, and the other regions that it scores highest.

Wrong annotations may be among them: an object with the wrong name or box scores low, and an object without annotation is a
region off all objects that scores high.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from pipeline.explorer.ranking import Found, Ranking, read_all
from pipeline.feature_store import FeatureStore
from pipeline.rcnn.svm import LinearSVMs

NEGATIVE_OVERLAP = 0.3  # IoU below which a region is a negative: section 2.3 of Girshick et al. 2014


@dataclass(frozen=True)
class Hardest:
    """`positives`, the lowest score first, and `negatives`, the highest first; their values are scores."""

    positives: list[Found]
    negatives: list[Found]


def hardest_regions(
    store: FeatureStore, svms: LinearSVMs, label: int, count: int = 24, *, progress: Callable[[Iterable], Iterable] = iter
) -> Hardest:
    """The `count` hardest positives and negatives of class number `label`, negatives at most one per image.

    Positives are the annotated objects of the class, without those marked difficult. Negatives overlap each object of the class
    by less than `NEGATIVE_OVERLAP`. Regions that lie on regions to ignore are neither. Memory: a few images.
    """
    positives, negatives = Ranking(count, one_per_image=False), Ranking(count)
    for _, image, regions in read_all([store], progress):
        if not len(regions.boxes):
            continue
        scores = svms.score(regions.features)[:, label]
        overlaps = regions.overlaps[:, label]
        object_rows = np.flatnonzero((regions.gt_labels == label) & ~regions.difficult)
        negative_rows = np.flatnonzero((overlaps >= 0) & (overlaps < NEGATIVE_OVERLAP))
        positives.add(0, image, -scores[object_rows], object_rows)
        negatives.add(0, image, scores[negative_rows], negative_rows)
    lowest = [Found(region.store, region.image, region.row, -region.value) for region in positives.best()]
    return Hardest(lowest, negatives.best())
