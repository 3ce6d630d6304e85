"""Detection by windows: dense as naive, boxes in the image's pixels, merging and limits."""

import numpy as np
import pytest
import torch

from pipeline.detection.candidates import Limits
from pipeline.networks.backbones import make_backbone
from pipeline.networks.whole_images import Scaling
from pipeline.sliding_window.detect import NMS, ScaleScores, SlidingWindowDetector, WindowSettings
from pipeline.sliding_window.network import WindowNetwork

pytestmark = pytest.mark.usefixtures("one_thread")
NO_LIMITS = Limits(0, 0.3, 0)


def make_detector(limits=NO_LIMITS, double=True, **settings) -> SlidingWindowDetector:
    torch.manual_seed(1)
    model = WindowNetwork(make_backbone("tiny"), 2).eval()
    settings = {"scales": (0.5, 1.0), "min_score": 0.4, **settings}
    return SlidingWindowDetector(model.double() if double else model, torch.device("cpu"), WindowSettings(**settings), limits)


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (48, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize(("double", "tolerance"), [(True, 1e-6), (False, 1e-4)])
def test_dense_equals_naive(pixels, double, tolerance):
    """Probabilities and boxes come as float32."""
    detector = make_detector(double=double)
    dense, naive = (list(detector.score(pixels, naive=naive)) for naive in (False, True))
    assert len(dense) == len(naive) == 2
    for first, second in zip(dense, naive, strict=True):
        np.testing.assert_allclose(first.probabilities, second.probabilities, atol=tolerance)
        np.testing.assert_allclose(first.boxes, second.boxes, atol=200 * tolerance)
        np.testing.assert_allclose(first.probabilities.sum(axis=0), 1, atol=1e-5)


def test_boxes_without_a_regressor_are_the_ideal_objects(pixels):
    """Edges of 0: the middle 65 % of the window. The first window begins a frame above and left of the image."""
    detector = make_detector(scales=(1.0,))
    for layer in (detector.model.edges.outputs.weight, detector.model.edges.outputs.bias):
        torch.nn.init.zeros_(layer)
    (scale,) = detector.score(pixels)
    factor, side, frame = 107 / 48, 107, 26
    expected = (np.array([0.175, 0.175, 0.825, 0.825]) * side - frame) / factor
    np.testing.assert_allclose(scale.boxes[0, 0], expected, atol=0.5)
    np.testing.assert_allclose(scale.boxes[1, 2] - scale.boxes[0, 0], np.array([16, 8, 16, 8]) / factor, atol=0.1)


def scores(boxes, probabilities) -> ScaleScores:
    """Windows in a row with these boxes [N x 4] and probabilities [N x 3]."""
    columns = np.array(probabilities, np.float32).T[:, None]
    return ScaleScores(Scaling((1, 1), (1.0, 1.0)), columns, np.array(boxes, np.float32)[None])


class TestMerge:
    BOXES = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [30, 30, 50, 60]])
    PROBABILITIES = np.array([[0.1, 0.9, 0.0], [0.4, 0.6, 0.0], [0.2, 0.1, 0.7]])
    SIZE = 40, 60

    def merge(self, *scales, **settings):
        return make_detector(**settings).merge(list(scales), self.SIZE)

    def test_two_scales_add_up(self):
        """The third box is cut to the image, and is of the second class."""
        first, second = (scores(self.BOXES[part], self.PROBABILITIES[part]) for part in (slice(1), slice(1, 3)))
        merged = self.merge(first, second)
        np.testing.assert_allclose(merged.score, [1.5, 0.7], rtol=1e-6)
        np.testing.assert_allclose(merged.boxes, [[0.8, 0, 10.8, 10], [30, 30, 50, 40]], rtol=1e-6)
        assert merged.class_index.tolist() == [0, 1]
        assert merged.survives.all()

    def test_suppression_instead(self):
        merged = self.merge(scores(self.BOXES, self.PROBABILITIES), merge=NMS)
        np.testing.assert_allclose(merged.score[merged.survives], [0.9, 0.7], rtol=1e-6)
        np.testing.assert_array_equal(merged.boxes[merged.survives][0], self.BOXES[0])

    def test_the_least_probability_counts(self):
        merged = self.merge(scores(self.BOXES, self.PROBABILITIES), min_score=0.6)
        np.testing.assert_allclose(merged.score, [1.5, 0.7], rtol=1e-6)
        assert len(self.merge(scores(self.BOXES, self.PROBABILITIES), min_score=0.95).score) == 0

    def test_limits_are_counted(self):
        merged = self.merge(scores(self.BOXES, self.PROBABILITIES), limits=Limits(1, 0.3, 1))
        assert merged.left_out == (0, 1, 1)
        np.testing.assert_allclose(merged.score[merged.survives], [0.9], rtol=1e-6)
