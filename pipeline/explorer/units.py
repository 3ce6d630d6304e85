"""The regions that excite one unit of `pool5` most (Girshick et al. 2014, section 3.1 and figure 4).

NOTE: the paper ranks all regions and lets non-maximum suppression leave out those near a better one. Here each image gives its
best region only.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pipeline.explorer.ranking import Found, Ranking, read_all
from pipeline.feature_store import PROPOSAL, FeatureStore


def strongest_regions(
    stores: Sequence[FeatureStore], unit: int, count: int = 24, *, progress: Callable[[Iterable], Iterable] = iter
) -> list[Found]:
    """The `count` proposals of `stores` that excite unit number `unit` most, at most one per image; values above 0 only."""
    ranking = Ranking(count)
    for number, image, regions in read_all(stores, progress):
        values = regions.features[:, unit].astype(np.float32)
        rows = np.flatnonzero((regions.gt_labels == PROPOSAL) & (values > 0))
        ranking.add(number, image, values[rows], rows)
    return ranking.best()
