"""The score from which on a class's detections count: the one with the largest F1 on a split.

F1 = 2 TP / (TP + FP + objects) is the harmonic mean of precision and recall. Equal scores count together. Of scores with equal F1
the higher one is taken. Detections that the evaluation ignores count nowhere.

Shape shorthand: C classes, K detections.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.voc_ap import IGNORED, TRUE_POSITIVE, Matches


@dataclass(frozen=True)
class OperatingPoint:
    """One class at its best F1: `score` is the lowest that counts, None if no detection finds an object."""

    score: float | None
    true_positives: int
    false_positives: int
    num_objects: int

    @property
    def f1(self) -> float:
        return 2 * self.true_positives / max(1, self.true_positives + self.false_positives + self.num_objects)

    @property
    def precision(self) -> float:
        return self.true_positives / max(1, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        return self.true_positives / max(1, self.num_objects)

    def to_json(self) -> dict:
        return {
            "score": self.score, "f1": self.f1, "precision": self.precision, "recall": self.recall, "objects": self.num_objects,
        }


def best_f1(matches: Matches, label: int) -> OperatingPoint:
    """The operating point of class `label`."""
    ranking = matches.ranking(label)
    ranking = ranking[matches.outcome[ranking] != IGNORED]
    num_objects = int(matches.num_positives[:, label].sum())
    scores, true = matches.detections.score[ranking], np.cumsum(matches.outcome[ranking] == TRUE_POSITIVE)
    if not true.any():
        return OperatingPoint(None, 0, 0, num_objects)
    f1 = 2 * true / (np.arange(1, len(true) + 1) + num_objects)
    f1[:-1][scores[:-1] == scores[1:]] = 0  # equal scores count together
    best = int(f1.argmax())
    return OperatingPoint(float(scores[best]), int(true[best]), best + 1 - int(true[best]), num_objects)


def operating_points(matches: Matches) -> np.ndarray:
    """The score [C] of each class's `best_f1`; inf without a hit."""
    scores = [best_f1(matches, label).score for label in range(len(matches.detections.classes))]
    return np.array([np.inf if score is None else score for score in scores])


def counted(matches: Matches, points: np.ndarray) -> np.ndarray:
    """Which detections, bool [K], reach the operating point [C] of their class."""
    return matches.detections.score >= points[matches.detections.class_index]
