"""Which of a detector's detections are drawn or written as annotations, and what its scores mean as probabilities.

`settings` is what `detector.json` says. Where the detector was exported with them, it has `thresholds`, with the score of each
class's best F1 as `scores` (None for a class without a hit), and `calibration`, the slope and offset of each class (or None).

Shape shorthand: C classes, N detections.
"""

from collections.abc import Mapping

import numpy as np

from pipeline.detection.score_names import AUTO, BEST_F1

# The scores of AUTO: the SVMs' border between the classes, and more likely than all else together by the softmax of Fast and
# Faster R-CNN. Sliding windows add up the probabilities of several windows.
DRAW_SCORES = {"rcnn": 0.0, "spp-net": 0.0, "fast-rcnn": 0.5, "faster-rcnn": 0.5, "r-fcn": 0.5, "sliding-window": 2.0}
DRAW_SCORE = 0.5  # of the later detectors, whose scores are probabilities


def lowest_scores(settings: Mapping, score: float | str = BEST_F1) -> np.ndarray:
    """The lowest score of each class that counts, float32 [C].

    `score` is a number for all classes, `auto` (DRAW_SCORES), or `best-f1`: those of the detector's thresholds. A class without a
    threshold, or a detector without any, has that of `auto`.
    """
    count, auto = len(settings["classes"]), DRAW_SCORES.get(settings["chain"], DRAW_SCORE)
    if score == BEST_F1 and settings.get("thresholds"):
        return np.array([auto if value is None else value for value in settings["thresholds"]["scores"]], np.float32)
    return np.full(count, auto if score in (AUTO, BEST_F1) else score, np.float32)


def probabilities(settings: Mapping, scores: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """The calibrated probability of each detection, float64 [N]; NaN for a class without; None if the detector has none."""
    if not settings.get("calibration"):
        return None
    lines = np.array([line or (np.nan, np.nan) for line in settings["calibration"]], np.float64)[labels].reshape(-1, 2)
    # exp overflows to infinity only where the probability is 0.
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-(lines[:, 0] * scores + lines[:, 1])))
