"""The hardest negatives of each class: regions off its objects that its trained SVM still scores highest.

Hard negative mining is based on such regions (Girshick et al. 2014, section 2.3). Objects of other classes are among them.

Shape shorthand: n regions of an image, C classes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from pipeline.feature_store import FeatureStore
from pipeline.rcnn.svm import LinearSVMs


@dataclass(frozen=True)
class Negative:
    """A region: the image's id, its box, score and IoU with objects of the class.

    `nearest` is the class of the object that it overlaps most, by IoU `nearest_overlap`; None where it overlaps none.
    """

    image: str
    box: tuple[float, ...]
    score: float
    overlap: float
    nearest: str | None
    nearest_overlap: float


def hardest_negatives(
    store: FeatureStore, svms: LinearSVMs, negative_overlap: float, count: int, progress: Callable[[Iterable], Iterable] = iter
) -> list[list[Negative]]:
    """For each class the `count` highest-scored regions in `store` with IoU < `negative_overlap`, at most one per image.

    Regions on those to ignore are left out, as in training. The highest score comes first; of equal ones the earlier image's.
    Memory: one image.
    """
    negatives: list[list[Negative]] = [[] for _ in store.classes]
    for image in progress(range(store.num_images)):
        rows = store.read(image)
        if not len(rows.boxes):
            continue
        is_negative = (rows.overlaps >= 0) & (rows.overlaps < negative_overlap)
        scores = np.where(is_negative, svms.score(rows.features), -np.inf)
        for label, region in enumerate(scores.argmax(axis=0)):
            if scores[region, label] > -np.inf:
                overlaps = rows.overlaps[region]
                nearest = int(overlaps.argmax())
                negatives[label].append(Negative(
                    store.image_ids[image], tuple(rows.boxes[region].tolist()), float(scores[region, label]),
                    float(overlaps[label]), store.classes[nearest] if overlaps[nearest] > 0 else None, float(overlaps[nearest]),
                ))
                negatives[label] = sorted(negatives[label], key=lambda negative: -negative.score)[:count]
    return negatives
