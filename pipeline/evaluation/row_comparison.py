"""The rows of a sweep: mAP over repeated runs, and each row's difference from the first, by paired bootstrap over images.

1. Each resample draws images once. All runs on the same test objects are judged on the same draws.
2. A row's AP in a resample is the mean over its runs, one for each seed.
3. The difference of two rows in a resample is the mean over the seeds of the differences of their runs with the same seed.

So the intervals say how much the result depends on the test images. How much it depends on the seed is the spread of the runs.

Shape shorthand: S runs of a row (seeds), R resamples, M images, C classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.evaluation.bootstrap import (
    Difference,
    Objects,
    are_same_objects,
    difference_of,
    draw_images,
    interval,
    objects_of,
    resampled_aps,
)
from pipeline.evaluation.voc_ap import Matches, Result, json_number


@dataclass(frozen=True, eq=False)
class RowResult:
    """One row: AP of each run [S x (C + 1)] as measured, the interval [2 x (C + 1)] of their mean, the difference from row one.

    The last column is the mean over the classes. `difference` is None in the first row, and where its test objects are others.
    """

    classes: tuple[str, ...]
    aps: np.ndarray
    interval: np.ndarray
    difference: Difference | None

    @property
    def maps(self) -> np.ndarray:
        """mAP of each run [S]."""
        return self.aps[:, -1]

    @property
    def spread(self) -> float:
        """Standard deviation of the mAP over the seeds; NaN for a single run."""
        return float(self.maps.std(ddof=1)) if len(self.maps) > 1 else float("nan")

    def to_json(self) -> dict:
        """The figures, an undefined one as null."""
        columns = (*self.classes, "mean")
        ends = {name: [json_number(low), json_number(high)] for name, low, high in zip(columns, *self.interval, strict=True)}
        return {
            "map": json_number(self.maps.mean()), "maps": [json_number(value) for value in self.maps],
            "spread": json_number(self.spread), "interval_95": ends["mean"],
            "classes": {name: {"ap": json_number(ap), "interval_95": ends[name]}
                        for name, ap in zip(self.classes, self.aps.mean(axis=0))},
            "difference": self.difference and _difference_json(self.difference, columns),
        }


def _difference_json(difference: Difference, columns: Sequence[str]) -> dict:
    arrays = difference.mean, difference.low, difference.high, difference.share_above
    return {
        name: {"difference": json_number(mean), "interval_95": [json_number(low), json_number(high)],
               "share_above": json_number(share)}
        for name, mean, low, high, share in zip(columns, *arrays, strict=True)
    }


class RowComparison:
    """Compares rows, given one after the other. Of a run only the resampled APs stay in memory, not its detections."""

    def __init__(self, num_resamples: int, generator: np.random.Generator, metric: str):
        self.num_resamples, self.generator, self.metric = num_resamples, generator, metric
        self.draws: dict[tuple[str, ...], np.ndarray] = {}  # of each split, by the ids of its images
        self.first: _Row | None = None

    def add(self, runs: Iterable[Result]) -> RowResult:
        """The result of the next row, from its runs, one for each seed, in the same order of seeds as in the first row."""
        row = _Row([], [], [])
        for result in runs:
            row.aps.append(_aps(result, self.metric))
            row.samples.append(self._resample(result.matches))
            row.objects.append(objects_of(result.matches))
        aps, difference = np.array(row.aps), None
        if self.first and all(map(are_same_objects, row.objects, self.first.objects)):
            pairs = zip(row.samples, self.first.samples, strict=True)
            difference = difference_of(np.mean([own - first for own, first in pairs], axis=0))
            # As measured, not the mean over the resamples.
            difference = replace(difference, mean=np.mean(aps - np.array(self.first.aps), axis=0))
        self.first = self.first or row
        return RowResult(row.objects[0].classes, aps, interval(np.mean(row.samples, axis=0)), difference)

    def _resample(self, matches: Matches) -> np.ndarray:
        images = matches.detections.image_ids
        if images not in self.draws:
            self.draws[images] = draw_images(len(images), self.num_resamples, self.generator)
        return resampled_aps(matches, self.draws[images], self.metric)


@dataclass(frozen=True, eq=False)
class _Row:
    """What stays of a row, a list entry for each run."""

    aps: list[list[float]]
    samples: list[np.ndarray]
    objects: list[Objects]


def _aps(result: Result, metric: str) -> list[float]:
    """AP of each class, then the mean."""
    if metric == "07":
        return [*(of_class.ap_07 for of_class in result.classes), result.mean_ap_07]
    return [*(of_class.ap_area for of_class in result.classes), result.mean_ap_area]
