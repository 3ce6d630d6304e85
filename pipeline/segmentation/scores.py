"""How right label maps are: the scores of fully convolutional networks' paper (Long et al. 2015, section 5; `score.py`).

All scores come from a histogram [K x K] of pixels: rows are the true labels, columns the predicted ones, void is left out. It is
summed over the whole split: the mean of the images' scores would be another number.

- pixel accuracy: the part of the pixels that is right
- mean accuracy: the same for each class, then the mean; classes without a true pixel are left out
- mean IU: intersection over union of each class, then the mean. A class that is neither true nor predicted is left out; one that
  is predicted and never true has 0 and counts.
- frequency-weighted IU: the mean weighted by the true pixels

Shape shorthand: N images, K labels, R resamples.
"""

import numpy as np
from scipy.sparse import csr_array

from pipeline.datasets.masks import VOID
from pipeline.errors import PipelineError
from pipeline.evaluation.bootstrap import interval
from pipeline.evaluation.keypoints import ratio
from pipeline.evaluation.voc_ap import json_number

SCORES = ("pixel_accuracy", "mean_accuracy", "mean_iu", "fw_iu")
CLASS_SCORES = ("class_iu", "class_accuracy")
CHUNK = 4_000_000  # cells of histograms held at a time: 32 MB


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The histogram int64 [K x K] of two label maps of one shape; K = `classes`.

    Raises PipelineError when the shapes differ, or a label is neither below K nor, in `truth`, VOID.
    """
    if truth.shape != predicted.shape:
        raise PipelineError(f"label maps of {predicted.shape} for a truth of {truth.shape}; predict at the image's own size")
    labelled = truth != VOID
    true, seen = truth[labelled].astype(np.int64), predicted[labelled].astype(np.int64)
    for labels, what in ((true, "true"), (seen, "predicted")):
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            wrong = labels[(labels < 0) | (labels >= classes)]
            raise PipelineError(f"{len(wrong):,} {what} pixels have the label {wrong[0]}; expected 0 to {classes - 1}")
    return np.bincount(classes * true + seen, minlength=classes**2).reshape(classes, classes)


def scores(histogram: np.ndarray) -> dict:
    """The scores of a histogram [K x K] as JSON: SCORES, and of each class CLASS_SCORES. None for what is not defined."""
    values = _scores(np.asarray(histogram))
    return {
        **{name: json_number(float(values[name])) for name in SCORES},
        **{name: list(map(json_number, values[name].tolist())) for name in CLASS_SCORES},
    }


def bootstrap_scores(histograms: np.ndarray, resamples: int, generator: np.random.Generator) -> dict:
    """Bounds [low, high] of the 95 % interval of each score, as JSON; of each class for CLASS_SCORES.

    `histograms` [N x K x K] are the images'. A resample draws N images with replacement. A score that no resample defines has
    the bounds None. Raises PipelineError without images.
    """
    samples = _resampled(histograms, _draw(len(histograms), resamples, generator))
    bounds = {name: interval(values) for name, values in samples.items()}
    return {
        **{name: _bounds(*bounds[name].tolist()) for name in SCORES},
        **{name: [_bounds(*pair) for pair in bounds[name].T.tolist()] for name in CLASS_SCORES},
    }


def paired(before: np.ndarray, after: np.ndarray, resamples: int, generator: np.random.Generator) -> dict:
    """By how much the mean IU of `after` is above that of `before`, both histograms [N x K x K] of the same images, as JSON.

    `gain` is of the whole split, `interval_95` of resamples that draw the same images for both, and `share_above` the part of the
    resamples with a gain above 0. Raises PipelineError when the images' true pixels differ.
    """
    if before.shape != after.shape or not np.array_equal(before.sum(axis=2), after.sum(axis=2)):
        raise PipelineError(f"paired comparison of label maps of different images or classes ({before.shape}, {after.shape}); "
                            "score both on the same split")
    counts = _draw(len(before), resamples, generator)
    gains = _resampled(after, counts)["mean_iu"] - _resampled(before, counts)["mean_iu"]
    defined = gains[~np.isnan(gains)]
    gain = float(_scores(after.sum(axis=0))["mean_iu"] - _scores(before.sum(axis=0))["mean_iu"])
    share = float((defined > 0).mean()) if len(defined) else None
    return {"gain": json_number(gain), "interval_95": _bounds(*interval(gains).tolist()), "share_above": share}


def label_counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """How many pixels of a label map have each label: int64 [K]; void is left out."""
    return np.bincount(labels[labels != VOID].ravel(), minlength=classes)


def median_frequency_weights(counts: np.ndarray) -> np.ndarray:
    """The weight of each class in a loss that balances them, float64 [K] (Eigen and Fergus 2015; SegNet): median(f) / f(c).

    `counts` [N x K] are the images' pixels by class; f(c) = pixels of class c / labelled pixels of the images that contain c. A
    class without a pixel has the weight 0, and no part in the median.
    """
    counts = np.asarray(counts)
    of_images = counts.sum(axis=1)
    frequency = ratio(counts.sum(axis=0), ((counts > 0) * of_images[:, None]).sum(axis=0))
    present = ~np.isnan(frequency)
    weights = np.zeros(counts.shape[1])
    if present.any():
        weights[present] = np.median(frequency[present]) / frequency[present]
    return weights


def _scores(histogram: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of histograms [... x K x K], NaN where not defined."""
    right = np.diagonal(histogram, axis1=-2, axis2=-1).astype(np.float64)
    true, predicted = histogram.sum(axis=-1), histogram.sum(axis=-2)
    total = true.sum(axis=-1)
    class_accuracy, class_iu = ratio(right, true), ratio(right, true + predicted - right)
    return {
        "pixel_accuracy": ratio(right.sum(axis=-1), total), "mean_accuracy": _mean(class_accuracy), "mean_iu": _mean(class_iu),
        "fw_iu": ratio(np.where(true > 0, true * class_iu, 0).sum(axis=-1), total),
        "class_iu": class_iu, "class_accuracy": class_accuracy,
    }


def _mean(values: np.ndarray) -> np.ndarray:
    """The means of the defined values of the last axis."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1))


def _draw(images: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """How often each resample holds each image [R x N]."""
    if images == 0:
        raise PipelineError("bootstrap of a split without images; evaluate on a split that has some")
    return generator.multinomial(images, np.full(images, 1 / images), size=resamples)


def _resampled(histograms: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of each resample: [R], and [R x K] for CLASS_SCORES."""
    images, classes = histograms.shape[:2]
    flat = csr_array(histograms.reshape(images, -1))  # an image has few classes
    step = max(1, CHUNK // classes**2)
    parts = [_scores((counts[start:start + step] @ flat).reshape(-1, classes, classes)) for start in range(0, len(counts), step)]
    return {name: np.concatenate([part[name] for part in parts]) for name in (*SCORES, *CLASS_SCORES)}


def _bounds(low: float, high: float) -> list[float | None]:
    return [json_number(low), json_number(high)]
