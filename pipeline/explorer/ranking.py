"""The best regions of stores that are read image by image, without holding the others.

Shape shorthand: n regions of an image, K regions kept.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.feature_store import FeatureStore, ImageFeatures
from pipeline.prefetch import prefetch


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
            self._kept = sorted(self._kept, key=lambda region: -region.value)[: self.count]

    def best(self) -> list[Found]:
        """The regions kept, the largest value first."""
        return list(self._kept)


def read_all(
    stores: Sequence[FeatureStore], progress: Callable[[Iterable], Iterable]
) -> Iterator[tuple[int, int, ImageFeatures]]:
    """(store, image, its regions) of every image of all `stores`, in order; a few images are read ahead in a thread."""
    return _each(stores, progress, lambda store, image: store.read(image))


def features_of_all(
    stores: Sequence[FeatureStore], progress: Callable[[Iterable], Iterable]
) -> Iterator[tuple[int, int, np.ndarray]]:
    """As `read_all`, with the features of the regions alone."""
    return _each(stores, progress, lambda store, image: store.features(image))


def _each(stores: Sequence[FeatureStore], progress: Callable[[Iterable], Iterable], read: Callable) -> Iterator[tuple]:
    places = [(number, image) for number, store in enumerate(stores) for image in range(store.num_images)]
    with contextlib.closing(prefetch(read(stores[number], image) for number, image in places)) as ahead:
        for number, image in progress(places):
            yield number, image, next(ahead)
