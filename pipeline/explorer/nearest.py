"""The regions whose features are nearest to given ones, over whole stores.

The search is exact: it compares all regions, image by image. Memory: a few images.

Shape shorthand: n regions of an image, D features.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pipeline.errors import PipelineError
from pipeline.explorer.ranking import Found, Ranking, features_of_all
from pipeline.feature_store import FeatureStore
from pipeline.half_floats import widen

L2, COSINE = "l2", "cosine"
MEASURES = (COSINE, L2)


def distances(features: np.ndarray, query: np.ndarray, measure: str) -> np.ndarray:
    """The distance of each row of `features` float16 [n x D] from `query` [D], float32 [n].

    `l2` is the Euclidean distance; `cosine` is 1 minus the cosine of the angle. A row of zeros has no angle: its cosine is 0.
    """
    rows, query = widen(np.asarray(features, np.float16)), np.asarray(query, np.float32)
    if measure == L2:
        # Of the differences: |a|^2 - 2 a b + |b|^2 would round away what distinguishes rows that are nearly equal.
        rows -= query  # in place: another array of this size takes longer than the arithmetic
        return np.sqrt(np.einsum("nd,nd->n", rows, rows))
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows)) * np.linalg.norm(query)
    return 1 - np.divide(rows @ query, lengths, out=np.zeros(len(rows), np.float32), where=lengths > 0)


def nearest_regions(
    stores: Sequence[FeatureStore], query: np.ndarray, measure: str = COSINE, count: int = 24, *,
    leave_out: tuple[int, int, int] | None = None, one_per_image: bool = True,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Found]:
    """The `count` regions of `stores` nearest to the features `query` [D], the nearest first; their values are distances.

    `leave_out` is (store, image, row) of the query itself. Raises PipelineError if a store has features of another size.
    """
    for store in stores:
        if store.num_features != len(query):
            sizes = f"{store.num_features} values in the store, {len(query)} in the query"
            raise PipelineError(f"features of {sizes}; search with features of the same layer and network")
    ranking = Ranking(count, one_per_image)
    for number, image, features in features_of_all(stores, progress):
        values = -distances(features, query, measure)
        rows = np.arange(len(values))
        if leave_out and leave_out[:2] == (number, image):
            values, rows = np.delete(values, leave_out[2]), np.delete(rows, leave_out[2])
        ranking.add(number, image, values, rows)
    return [Found(region.store, region.image, region.row, -region.value) for region in ranking.best()]
