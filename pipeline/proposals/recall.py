"""How well proposals cover the objects: recall and mean average best overlap (Uijlings et al. 2013, section 5.1).

Objects that do not count (difficult ones, say) are left out by the caller.
Shape shorthand: an image has n objects and N proposals; T thresholds.
"""

import numpy as np

from pipeline.boxes import iou


def best_overlap(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """For each object in `truth` [n x 4] its largest IoU with any of `boxes` [N x 4]: [n], 0 where there are no boxes."""
    return iou(truth, boxes).max(axis=1, initial=0)


def recall(boxes: list[np.ndarray], truth: list[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """Fraction of all objects whose best overlap is >= each of `thresholds`: [T]; NaN when there is no object.

    `boxes` [N x 4] and `truth` [n x 4], one array an image.
    """
    best = _all_best_overlaps(boxes, truth)
    if not len(best):
        return np.full(len(thresholds), np.nan)
    return (best >= np.reshape(thresholds, (-1, 1))).mean(axis=1)


def mean_average_best_overlap(boxes: list[np.ndarray], truth: list[np.ndarray], labels: list[np.ndarray]) -> float:
    """MABO: the mean over classes of the mean best overlap of a class's objects (Uijlings et al. 2013, equation 7).

    `boxes` [N x 4], `truth` [n x 4] and `labels` [n], one array an image. Classes without objects do not count; NaN when
    there is no object at all.
    """
    best = _all_best_overlaps(boxes, truth)
    label = np.concatenate([np.zeros(0, np.int64), *labels])
    averages = [best[label == one].mean() for one in np.unique(label)]
    return float(np.mean(averages)) if averages else float("nan")


def _all_best_overlaps(boxes: list[np.ndarray], truth: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *(best_overlap(*image) for image in zip(boxes, truth, strict=True))])
