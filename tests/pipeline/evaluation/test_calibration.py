"""Platt's method: worked by hand, against a minimiser of the same likelihood, and what holds for any."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.detection.thresholds import probabilities
from pipeline.evaluation.calibration import calibrate, platt

A, B, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 60, 60)


def likelihood_of(scores, is_hit):
    """The line that Platt's likelihood is largest for: targets (N+ + 1) / (N+ + 2) and 1 / (N- + 2)."""
    hits = is_hit.sum()
    targets = np.where(is_hit, (hits + 1) / (hits + 2), 1 / (len(is_hit) - hits + 2))

    def loss(line):
        likely = expit(line[0] * scores + line[1])
        return -(targets * np.log(likely) + (1 - targets) * np.log1p(-likely)).sum()

    return minimize(loss, [0.0, 0.0], tol=1e-10).x


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_line_of_largest_likelihood(seed):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=200).astype(np.float32)
    is_hit = generator.random(200) < expit(2.5 * scores - 1)
    assert platt(scores, is_hit) == pytest.approx(likelihood_of(scores.astype(float), is_hit), abs=2e-3)


def test_two_detections_by_hand():
    """Scores 1 (a hit) and -1: targets 2/3 and 1/3, which the line can reach: slope ln 2, offset 0."""
    assert platt(np.float32([1, -1]), np.array([True, False])) == pytest.approx((np.log(2), 0), abs=1e-3)


@pytest.mark.parametrize("is_hit", [[True, True], [False, False], [], [False, True]])
def test_nothing_to_learn(is_hit):
    """Hits alone, false alarms alone, no detection, and a better score for the worse detection."""
    assert platt(np.float32([1, 0])[: len(is_hit)], np.array(is_hit, bool)) is None


def test_each_class_by_itself_without_what_is_ignored(make_image, make_matches):
    images = [make_image("x", [A, B], [0, 0], [False, True])]
    rows = [(0, 0, 1, A), (0, 0, 5, B), (0, 0, -1, FAR), (0, 1, 1, FAR)]
    lines = calibrate(make_matches(images, ("a", "b"), rows))
    assert lines[0] == pytest.approx((np.log(2), 0), abs=1e-3)
    assert lines[1] is None


SETTINGS = {"classes": ["a", "b"], "calibration": [[2.0, -1.0], None]}


class TestProbabilities:
    def test_by_hand(self):
        likely = probabilities(SETTINGS, np.float32([0.5, 0.5, -1000, 1000]), np.array([0, 1, 0, 0]))
        np.testing.assert_allclose(likely, [0.5, np.nan, 0, 1])

    def test_none_without_calibration_and_empty(self):
        assert probabilities({"classes": ["a"]}, np.float32([1]), np.array([0])) is None
        assert probabilities(SETTINGS, np.zeros(0, np.float32), np.zeros(0, int)).shape == (0,)
