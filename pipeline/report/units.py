"""What the units of a layer look for: the regions that excite each most (Girshick et al. 2014, section 3.1, figure 4).

NOTE: the paper ranks all regions and lets non-maximum suppression leave out those near a better one. Here a unit has the best
region of each image, so that nothing is shown twice, and one pass over the store with little memory is enough.

Shape shorthand: D units, C classes, K regions a unit.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from pipeline.feature_store import PROPOSAL, FeatureStore
from pipeline.rcnn.scaling import widen

COVERS = 0.5  # IoU from which on a region is said to cover an object


@dataclass(frozen=True, eq=False)
class TopRegions:
    """The K regions that excite each unit most, the strongest first, at most one per image.

    `activations` float32 [K x D], -inf where there are fewer; `images` int64 [K x D] count in the store; `boxes` float32
    [K x D x 4]; `overlaps` float32 [K x D x C], the largest IoU with an object of each class.
    """

    activations: np.ndarray
    images: np.ndarray
    boxes: np.ndarray
    overlaps: np.ndarray


def top_regions(store: FeatureStore, count: int, progress: Callable[[Iterable], Iterable] = iter) -> TopRegions:
    """The `count` proposals in `store` that excite each unit most. Memory: one image, and the result."""
    size, units = (count, store.num_features), np.arange(store.num_features)
    activations, images = np.full(size, -np.inf, np.float32), np.zeros(size, np.int64)
    boxes, overlaps = np.zeros((*size, 4), np.float32), np.zeros((*size, len(store.classes)), np.float32)
    for image in progress(range(store.num_images)):
        rows = store.read(image)
        proposals = np.flatnonzero(rows.gt_labels == PROPOSAL)
        if not len(proposals):
            continue
        features = widen(rows.features[proposals])
        best = features.argmax(axis=0)
        values, weakest = features[best, units], activations.argmin(axis=0)
        better = np.flatnonzero(values > activations[weakest, units])
        place, region = (weakest[better], better), proposals[best[better]]
        activations[place], images[place] = values[better], image
        boxes[place], overlaps[place] = rows.boxes[region], np.maximum(rows.overlaps[region], 0)
    order = np.argsort(-activations, axis=0, kind="stable")
    return TopRegions(*(
        np.take_along_axis(values, order.reshape(*size, *[1] * (values.ndim - 2)), axis=0)
        for values in (activations, images, boxes, overlaps)
    ))


def choose_units(top: TopRegions, number: int) -> list[tuple[int, int]]:
    """At most `number` pairs (class, unit): classes whose objects the regions of one unit cover most often, and that unit.

    Of units that cover equally often the one whose regions overlap the class more; each unit stands for one class. By class.
    """
    alive = np.isfinite(top.activations)[..., None] & (top.activations > 0)[..., None]
    covered = ((top.overlaps >= COVERS) & alive).sum(axis=0)
    ranks = covered + np.where(alive, top.overlaps, 0).mean(axis=0)  # the mean is below 1 where it has to decide
    chosen: dict[int, int] = {}
    for label in np.argsort(-covered.max(axis=0, initial=0), kind="stable").tolist():
        free = ~np.isin(np.arange(len(ranks)), list(chosen.values()))
        unit = int(np.where(free, ranks[:, label], -1).argmax()) if len(ranks) else 0
        if len(chosen) < number and free.any() and covered[unit, label]:
            chosen[label] = unit
    return sorted(chosen.items())


def unit_record(top: TopRegions, store: FeatureStore, label: int, unit: int) -> dict:
    """What is kept of one chosen unit, as JSON: its class, how many of its regions cover one such object, and the regions."""
    regions = [
        {
            "image": store.image_ids[top.images[place, unit]], "box": top.boxes[place, unit].tolist(),
            "activation": float(top.activations[place, unit]), "overlap": float(top.overlaps[place, unit, label]),
        }
        for place in np.flatnonzero(top.activations[:, unit] > 0)
    ]
    covering = sum(region["overlap"] >= COVERS for region in regions)
    return {"unit": unit, "class": store.classes[label], "covering": covering, "regions": regions}
