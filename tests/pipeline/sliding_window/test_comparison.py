"""Naive and dense windows compared."""

import numpy as np

from pipeline.networks.whole_images import Scaling
from pipeline.sliding_window.comparison import Comparison
from pipeline.sliding_window.detect import ScaleScores


def scores(probability: float, edge: float) -> ScaleScores:
    probabilities, boxes = np.full((2, 3, 3), probability, np.float32), np.full((3, 3, 4), edge, np.float32)
    return ScaleScores(Scaling((1, 1), (1.0, 1.0)), probabilities, boxes)


def test_largest_differences_and_mean_seconds():
    comparison = Comparison()
    for naive, dense, seconds in ((0.5, 0.25, 3.0), (0.5, 0.5, 5.0)):
        comparison.add([scores(naive, 10)], [scores(dense, 10 + 4 * seconds)])
        comparison.add_seconds(True, seconds)
        comparison.add_seconds(False, 1.0)
    assert comparison.figures() == {
        "naive_seconds": 4.0, "dense_seconds": 1.0, "largest_difference": 0.25, "largest_box_difference": 20.0
    }
