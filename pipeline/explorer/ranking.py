"""The best regions of stores that are read image by image, without holding the others.

Shape shorthand: n regions of an image, K regions kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.feature_store import FeatureStore


@dataclass(frozen=True)
class Found:
    """A region of a store: number `row` of image number `image` in store number `store`, and the value that it is ranked by."""

    store: int
    image: int
    row: int
    value: float


class Ranking:
    """Keeps the `count` regions with the largest values; of equal ones those that came first.

    With `one_per_image` only the best region of each image: neighbours of one region look alike and would fill the list.
    """

    def __init__(self, count: int, one_per_image: bool = True):
        self.count, self.one_per_image = count, one_per_image
        self._kept: list[Found] = []

    def add(self, store: int, image: int, values: np.ndarray, rows: np.ndarray) -> None:
        """Offers the regions `rows` [n] of one image with their `values` [n]."""
        if not len(values):
            return
        best = np.argsort(-values, kind="stable")[: 1 if self.one_per_image else self.count]
        if len(self._kept) == self.count:
            best = best[values[best] > self._kept[-1].value]
        if len(best):
            self._kept += [Found(store, image, int(rows[place]), float(values[place])) for place in best]
            self._kept = sorted(self._kept, key=lambda found: -found.value)[: self.count]

    def best(self) -> list[Found]:
        """The regions kept, the largest value first."""
        return list(self._kept)


def images_of(stores: Sequence[FeatureStore]) -> list[tuple[int, int]]:
    """(store, image) of every image of all `stores`, in order."""
    return [(number, image) for number, store in enumerate(stores) for image in range(store.num_images)]
