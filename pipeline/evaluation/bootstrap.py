"""How sure an AP is: percentile bootstrap over the images of a split (Efron and Tibshirani 1993, chapter 13).

A resample draws as many images as the split has, with replacement. Matching never looks beyond one image, so it is done once;
a resample only counts each image's detections and objects as often as the image was drawn.
NOTE: an image drawn k times ranks a detection k times in a row. Laid out as k images, detections of *one* image and class with
equal scores would alternate instead; all others rank the same.

Shape shorthand: R resamples, M images, C classes, D detections of one class, T of them true positives.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from pipeline.errors import PipelineError
from pipeline.evaluation.voc_ap import FALSE_POSITIVE, TRUE_POSITIVE, Matches, average_precision

CHUNK = 4_000_000  # counts held at a time: 32 MB an array


@dataclass(frozen=True, eq=False)
class Difference:
    """AP of one detector minus that of another, for each class, then of the means [C + 1].

    `mean` over the resamples, `low` and `high` of the interval, `share_above` the share of resamples in which it is > 0.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    share_above: np.ndarray


@dataclass(frozen=True, eq=False)
class Objects:
    """What a detector was judged on: images, classes, and how many objects of each class an image has [M x C]."""

    image_ids: tuple[str, ...]
    classes: tuple[str, ...]
    num_positives: np.ndarray


def bootstrap(matches: Matches, num_resamples: int, generator: np.random.Generator, metric: str = "area") -> np.ndarray:
    """APs of resampled splits [R x (C + 1)]: each class, then the mean. `metric` as in `average_precision`.

    A class that has no object in a resample is NaN there and left out of its mean. Raises PipelineError without images.
    """
    return resampled_aps(matches, draw_images(len(matches.num_positives), num_resamples, generator), metric)


def interval(samples: np.ndarray, level: float = 0.95) -> np.ndarray:
    """The central share `level` of each column of `samples` [R x ...]: [2 x ...], lower and upper ends. NaNs are left out."""
    defined = ~np.isnan(samples).all(axis=0)
    ends = np.full((2, *samples.shape[1:]), np.nan)
    ends[:, defined] = np.nanquantile(samples[:, defined], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return ends


def paired_difference(
    first: Matches, second: Matches, num_resamples: int, generator: np.random.Generator, *, metric: str = "area",
    level: float = 0.95,
) -> Difference:
    """AP of `first` minus AP of `second`, both on the same resamples of the same images.

    Raises PipelineError when their images, classes or objects are not the same.
    """
    if not are_same_objects(objects_of(first), objects_of(second)):
        sizes = " and ".join("{} images, {} classes".format(*matches.num_positives.shape) for matches in (first, second))
        raise PipelineError(f"paired comparison of detectors on different splits ({sizes}); evaluate both on the same split")
    counts = draw_images(len(first.num_positives), num_resamples, generator)
    return difference_of(resampled_aps(first, counts, metric) - resampled_aps(second, counts, metric), level)


def objects_of(matches: Matches) -> Objects:
    return Objects(matches.detections.image_ids, matches.detections.classes, matches.num_positives)


def are_same_objects(first: Objects, second: Objects) -> bool:
    """Whether a paired comparison of detectors on these objects makes sense."""
    names = [(objects.image_ids, objects.classes) for objects in (first, second)]
    return names[0] == names[1] and np.array_equal(first.num_positives, second.num_positives)


def difference_of(samples: np.ndarray, level: float = 0.95) -> Difference:
    """The difference whose values in the resamples are `samples` [R x (C + 1)]."""
    defined = ~np.isnan(samples)
    low, high = interval(samples, level)
    return Difference(_nan_mean(samples, axis=0), low, high, _nan_mean(np.where(defined, samples > 0, np.nan), axis=0))


def draw_images(num_images: int, num_resamples: int, generator: np.random.Generator) -> np.ndarray:
    """How often each resample holds each image [R x M]: drawing M times with replacement is one multinomial draw.

    Raises PipelineError without images.
    """
    if num_images == 0:
        raise PipelineError("bootstrap of a split without images; evaluate on a split that has some")
    return generator.multinomial(num_images, np.full(num_images, 1 / num_images), size=num_resamples)


def resampled_aps(matches: Matches, counts: np.ndarray, metric: str) -> np.ndarray:
    """APs [R x (C + 1)] of the resamples that hold each image `counts` [R x M] times: each class, then the mean."""
    classes = [_class_samples(matches, label, counts, metric) for label in range(matches.num_positives.shape[1])]
    samples = np.stack(classes, axis=1)
    return np.column_stack([samples, _nan_mean(samples, axis=1)])


def _class_samples(matches: Matches, label: int, counts: np.ndarray, metric: str) -> np.ndarray:
    """APs [R] of one class; NaN where a resample has no object of it."""
    ranking = matches.ranking(label)
    image, outcome = matches.detections.image_index[ranking], matches.outcome[ranking]
    num_positives = counts @ matches.num_positives[:, label]
    # AP depends on a curve's points at true positives alone: between them precision only falls.
    true = np.flatnonzero(outcome == TRUE_POSITIVE)
    false = np.flatnonzero(outcome == FALSE_POSITIVE)
    # How many false positives each image has between two true ones. Few of the many are before the last true one.
    place = np.searchsorted(true, false)
    between = csr_array((np.ones(len(false), np.int64), (image[false], place)), shape=(counts.shape[1], len(true) + 1))
    samples = np.full(len(counts), np.nan)
    step = max(1, CHUNK // max(1, len(true)))
    for start in range(0, len(counts), step):
        drawn = np.flatnonzero(num_positives[start:start + step]) + start
        true_positives = np.cumsum(counts[drawn][:, image[true]], axis=1)
        false_positives = np.cumsum(counts[drawn] @ between, axis=1)[:, :-1]
        precision = true_positives / np.maximum(true_positives + false_positives, 1)
        samples[drawn] = average_precision(true_positives / num_positives[drawn, None], precision, metric)
    return samples


def _nan_mean(values: np.ndarray, axis: int) -> np.ndarray:
    defined = ~np.isnan(values)
    number = defined.sum(axis)
    return np.divide(np.where(defined, values, 0).sum(axis), number, out=np.full(number.shape, np.nan), where=number > 0)
