"""Probabilities from scores, by Platt's method (Platt 1999, with the targets of Lin et al. 2007), as scikit-learn computes it.

P(a detection with score f finds an object) = 1 / (1 + exp(-(slope f + offset))). Both numbers of a class are fitted to the true
and false positives of that class on a split. Detections that the evaluation ignores are left out.

Shape shorthand: C classes, D detections of one class.
"""

import numpy as np

from pipeline.evaluation.voc_ap import IGNORED, TRUE_POSITIVE, Matches

Line = tuple[float, float]  # slope and offset of a class


def calibrate(matches: Matches) -> list[Line | None]:
    """Slope and offset of each class [C].

    None where nothing can be learned: without true or without false positives, or where better scores are no better detections.
    """
    lines: list[Line | None] = []
    for label in range(len(matches.detections.classes)):
        rows = matches.ranking(label)
        rows = rows[matches.outcome[rows] != IGNORED]
        lines.append(platt(matches.detections.score[rows], matches.outcome[rows] == TRUE_POSITIVE))
    return lines


def platt(scores: np.ndarray, is_hit: np.ndarray) -> Line | None:
    """Slope and offset from `scores` [D] and whether each detection is a true positive [D]; None as `calibrate`."""
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV

    class Given(ClassifierMixin, BaseEstimator):
        """Stands for the detector: its decision values are its input."""

        def fit(self, scores, is_hit):
            self.classes_ = np.array([False, True])
            return self

        def decision_function(self, scores):
            return scores[:, 0]

        def predict(self, scores):
            return scores[:, 0] > 0

    if is_hit.all() or not is_hit.any():
        return None
    # The only fold holds all detections: one sigmoid is fitted to them. Nothing is trained, so none has to be held out.
    rows = np.arange(len(scores))
    method = CalibratedClassifierCV(Given(), method="sigmoid", cv=[(rows, rows)], ensemble=False)
    (sigmoid,) = method.fit(scores.astype(np.float64)[:, None], is_hit).calibrated_classifiers_[0].calibrators
    slope, offset = -float(sigmoid.a_), -float(sigmoid.b_)
    return (slope, offset) if slope > 0 else None
