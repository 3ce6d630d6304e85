"""Scores of regions by the fine-tuned network's own softmax, in place of SVMs (Girshick et al. 2014, appendix B).

The network's classifier gives C + 1 scores, the background's first. The softmax stays the same when the background's is taken
from all: the background then scores 0, and C rows of weights remain, as many as there are SVMs.

Shape shorthand: n regions, C classes, D features of the last layer.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.rcnn.array_record import ArrayRecord
from pipeline.rcnn.svm import LinearSVMs, decision_values


@dataclass(frozen=True, eq=False)
class SoftmaxScores(ArrayRecord):
    """`W` float32 [D x C] and `B` float32 [C] apply to features times `scale`, which is 1."""

    classes: tuple[str, ...]
    W: np.ndarray
    B: np.ndarray
    scale: float

    @classmethod
    def of_classifier(cls, classes: tuple[str, ...], weight: np.ndarray, bias: np.ndarray) -> "SoftmaxScores":
        """From the classifier's layer: `weight` [C + 1 x D] and `bias` [C + 1], whose first row is the background's."""
        return cls(classes, (weight[1:] - weight[0]).T, bias[1:] - bias[0], 1.0)

    def score(self, features: np.ndarray) -> np.ndarray:
        """The probabilities of the classes [n x C] of `features` [n x D]."""
        values = decision_values(features, self.W, self.B, self.scale)
        largest = np.maximum(values.max(axis=1, keepdims=True, initial=0), 0)  # of the background too, so that none overflows
        powers = np.exp(values - largest)
        return powers / (powers.sum(axis=1, keepdims=True) + np.exp(-largest))


def region_scores(arrays: dict[str, np.ndarray]) -> LinearSVMs | SoftmaxScores:
    """The SVMs or the softmax in `arrays`. Only SVMs have a record of their training."""
    return LinearSVMs.from_arrays(arrays) if "events" in arrays else SoftmaxScores.from_arrays(arrays)
