"""The softmax of the network in place of SVMs, against the softmax of its whole classifier."""

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.rcnn.softmax import SoftmaxScores, region_scores
from tests.pipeline.rcnn.test_detect import make_svms

CLASSES = "cat", "dog"


def make_classifier(generator, scale=1.0):
    return scale * generator.normal(size=(3, 5)).astype(np.float32), generator.normal(size=3).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 1000.0])  # the second would overflow a plain exponential
def test_is_the_softmax_of_all_scores_without_the_background(scale):
    generator = np.random.default_rng(0)
    weight, bias = make_classifier(generator, scale)
    features = generator.normal(size=(40, 5)).astype(np.float32)
    scores = features @ weight.T.astype(np.float64) + bias
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected = (powers / powers.sum(axis=1, keepdims=True))[:, 1:]
    np.testing.assert_allclose(SoftmaxScores.of_classifier(CLASSES, weight, bias).score(features), expected, atol=1e-3)


def test_by_hand():
    scores = SoftmaxScores.of_classifier(CLASSES, np.log([[1.0], [2.0], [1.0]]), np.zeros(3))
    np.testing.assert_allclose(scores.score(np.array([[1.0]])), [[0.5, 0.25]])
    assert scores.score(np.zeros((0, 1))).shape == (0, 2)


def test_files_tell_softmax_and_svms_apart():
    softmax = SoftmaxScores.of_classifier(CLASSES, *make_classifier(np.random.default_rng(1)))
    again = region_scores(softmax.to_arrays())
    assert isinstance(again, SoftmaxScores)
    assert again.classes == CLASSES
    np.testing.assert_array_equal(again.W, softmax.W)
    svms = make_svms(np.ones((5, 2)), np.zeros(2))
    assert type(region_scores(svms.to_arrays())) is type(svms)
    with pytest.raises(PipelineError, match="no classes, W"):
        region_scores({})
