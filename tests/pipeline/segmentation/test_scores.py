"""Scores of label maps by hand, by a slow version of their definitions, and against the release's where it is present."""

import json
import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.masks import palette
from pipeline.errors import PipelineError
from pipeline.segmentation.label_maps import VOID
from pipeline.segmentation.scores import (
    SCORES,
    bootstrap_scores,
    confusion,
    label_counts,
    median_frequency_weights,
    paired,
    scores,
)

MOST = 4  # labels of the drawn maps


@st.composite
def map_pairs(draw):
    """(truth, predicted, K): label maps of one shape; the truth has void."""
    classes = draw(st.integers(1, MOST))
    shape = draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=6))
    truth = draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from([*range(classes), VOID])))
    return truth, draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, classes - 1))), classes


def slow_scores(truth, predicted, classes):
    """The definitions, pixel by pixel and class by class."""
    pixels = [(t, p) for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist()) if t != VOID]
    accuracies, ius, weighted = [], [], 0.0
    for label in range(classes):
        both = sum(t == label and p == label for t, p in pixels)
        either = sum(label in (t, p) for t, p in pixels)
        true = sum(t == label for t, p in pixels)
        accuracies.append(both / true if true else None)
        ius.append(both / either if either else None)
        weighted += true / len(pixels) * both / either if true else 0

    def mean(values):
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    right = sum(t == p for t, p in pixels)
    return {
        "pixel_accuracy": right / len(pixels) if pixels else None, "mean_accuracy": mean(accuracies), "mean_iu": mean(ius),
        "fw_iu": weighted if pixels else None, "class_iu": ius, "class_accuracy": accuracies,
    }


def assert_near(result: dict, expected: dict) -> None:
    assert result.keys() == expected.keys()
    for name, values in expected.items():
        pairs = zip(result[name], values, strict=True) if isinstance(values, list) else [(result[name], values)]
        for first, second in pairs:
            assert first == second if None in (first, second) else math.isclose(first, second, rel_tol=1e-12, abs_tol=1e-12), name


class TestByHand:
    truth = np.array([[0, 0, 1], [1, 2, VOID]], np.uint8)
    predicted = np.array([[0, 1, 1], [1, 0, 3]], np.uint8)

    def test_histogram_has_true_rows_and_leaves_out_void(self):
        assert confusion(self.truth, self.predicted, 4).tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]

    def test_scores(self):
        assert_near(scores(confusion(self.truth, self.predicted, 4)), {
            "pixel_accuracy": 3 / 5, "mean_accuracy": (1 / 2 + 1 + 0) / 3, "mean_iu": (1 / 3 + 2 / 3 + 0) / 3,
            "fw_iu": 2 / 5 * 1 / 3 + 2 / 5 * 2 / 3, "class_iu": [1 / 3, 2 / 3, 0.0, None],
            "class_accuracy": [0.5, 1.0, 0.0, None],
        })

    def test_a_class_that_is_predicted_and_never_true_counts(self):
        result = scores(confusion(np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]], np.uint8), 2))
        assert result["class_iu"] == [0.75, 0.0]
        assert result["mean_iu"] == 0.375
        assert result["class_accuracy"] == [0.75, None]
        assert result["mean_accuracy"] == 0.75

    def test_void_alone_is_not_defined(self):
        result = scores(confusion(np.full((2, 2), VOID), np.zeros((2, 2), np.uint8), 2))
        assert [result[name] for name in SCORES] == [None] * 4
        assert result["class_iu"] == [None, None]
        json.dumps(result, allow_nan=False)

    def test_errors_name_label_and_count(self):
        good = np.zeros((2, 2), np.uint8)
        with pytest.raises(PipelineError, match="3 true pixels have the label 7; expected 0 to 1"):
            confusion(np.array([[0, 7], [7, 7]], np.uint8), good, 2)
        with pytest.raises(PipelineError, match="1 predicted pixels have the label 255"):
            confusion(good, np.array([[0, 0], [0, VOID]], np.uint8), 2)
        with pytest.raises(PipelineError, match="the image's own size"):
            confusion(good, good[:1], 2)


@given(map_pairs())
def test_equal_the_slow_definitions(case):
    truth, predicted, classes = case
    assert_near(scores(confusion(truth, predicted, classes)), slow_scores(truth, predicted, classes))


@given(map_pairs(), st.randoms(use_true_random=False))
def test_order_of_pixels_and_void_do_not_matter(case, random):
    truth, predicted, classes = case
    order = list(range(truth.size))
    random.shuffle(order)
    shuffled = confusion(truth.ravel()[order], predicted.ravel()[order], classes)
    more = confusion(np.append(truth, VOID), np.append(predicted, 0), classes)
    assert np.array_equal(shuffled, confusion(truth, predicted, classes))
    assert np.array_equal(more, shuffled)


@given(map_pairs())
def test_a_perfect_map_has_only_ones(case):
    truth, _, classes = case
    result = scores(confusion(truth, np.where(truth == VOID, 0, truth), classes))
    assert {result[name] for name in SCORES} <= {1.0, None}
    assert set(result["class_iu"]) <= {1.0, None}


class TestClassWeights:
    def test_by_hand(self):
        # Class 0: 6 of 10 labelled pixels of both images; class 1: 3 of 5; class 2: 1 of 5; class 3: none.
        counts = np.array([[2, 3, 0, 0], [4, 0, 1, 0]])
        np.testing.assert_allclose(median_frequency_weights(counts), [1, 1, 3, 0])

    def test_no_pixel_at_all(self):
        assert median_frequency_weights(np.zeros((2, 3), int)).tolist() == [0, 0, 0]

    def test_counts_leave_out_void(self):
        assert label_counts(np.array([[0, 2], [2, VOID]], np.uint8), 4).tolist() == [1, 0, 2, 0]


@pytest.fixture
def histograms(rng):
    """Histograms [12 x 3 x 3] of images, mostly right."""
    truth, noise = rng.integers(0, 3, (12, 20, 20)), rng.random((12, 20, 20))
    predicted = np.where(noise < 0.3, rng.integers(0, 3, truth.shape), truth)
    return np.stack([confusion(*maps, 3) for maps in zip(truth, predicted)])


class TestBootstrap:
    def test_equals_scores_of_drawn_images(self, histograms):
        """An independent version: images are drawn, their histograms summed, one resample after the other."""
        drawn = np.random.default_rng(4).multinomial(12, np.full(12, 1 / 12), size=50)
        samples = [scores(np.repeat(histograms, row, axis=0).sum(axis=0)) for row in drawn]
        bounds = bootstrap_scores(histograms, 50, np.random.default_rng(4))
        for name in SCORES:
            np.testing.assert_allclose(bounds[name], np.quantile([sample[name] for sample in samples], [0.025, 0.975]))
        for label in range(3):
            values = [sample["class_iu"][label] for sample in samples]
            np.testing.assert_allclose(bounds["class_iu"][label], np.quantile(values, [0.025, 0.975]))

    def test_chunks_change_nothing(self, histograms, monkeypatch):
        whole = bootstrap_scores(histograms, 30, np.random.default_rng(1))
        monkeypatch.setattr("pipeline.segmentation.scores.CHUNK", 20)
        assert bootstrap_scores(histograms, 30, np.random.default_rng(1)) == whole

    def test_holds_the_score_and_one_image_has_no_width(self, histograms):
        bounds, of_all = bootstrap_scores(histograms, 200, np.random.default_rng(0)), scores(histograms.sum(axis=0))
        assert all(bounds[name][0] < of_all[name] < bounds[name][1] for name in SCORES)
        single = bootstrap_scores(histograms[:1], 10, np.random.default_rng(0))
        assert single["mean_iu"] == [scores(histograms[0])["mean_iu"]] * 2

    def test_a_class_that_never_is_has_no_bounds(self):
        bounds = bootstrap_scores(np.array([[[5, 0], [0, 0]]]), 10, np.random.default_rng(0))
        assert bounds["class_iu"] == [[1.0, 1.0], [None, None]]
        json.dumps(bounds, allow_nan=False)

    def test_no_image(self):
        with pytest.raises(PipelineError, match="without images"):
            bootstrap_scores(np.zeros((0, 2, 2), int), 10, np.random.default_rng(0))


class TestPaired:
    def test_gain_over_itself_is_nothing(self, histograms):
        assert paired(histograms, histograms, 20, np.random.default_rng(0)) == {
            "gain": 0.0, "interval_95": [0.0, 0.0], "share_above": 0.0,
        }

    def test_a_better_map_gains_in_each_resample(self, histograms):
        perfect = np.stack([np.diag(each.sum(axis=1)) for each in histograms])
        result = paired(histograms, perfect, 50, np.random.default_rng(0))
        assert result["gain"] == pytest.approx(1 - scores(histograms.sum(axis=0))["mean_iu"])
        assert 0 < result["interval_95"][0] < result["gain"] < result["interval_95"][1]
        assert result["share_above"] == 1

    def test_is_narrower_than_apart(self, histograms):
        """Both see the same images: what makes an image hard for both cancels."""
        better = histograms.copy()
        better[:, 0, 0] += better[:, 0, 1]
        better[:, 0, 1] = 0
        low, high = paired(histograms, better, 200, np.random.default_rng(0))["interval_95"]
        apart = bootstrap_scores(histograms, 200, np.random.default_rng(0))["mean_iu"]
        assert high - low < apart[1] - apart[0]

    def test_other_truth(self, histograms):
        with pytest.raises(PipelineError, match="score both on the same split"):
            paired(histograms, histograms[::-1], 10, np.random.default_rng(0))


@pytest.mark.parametrize("case", ["s0", "s1", "s2"])
def test_scores_of_the_release(shared, case):
    path = shared / "oracles2" / "segmentation.npz"
    if not path.is_file():
        pytest.skip(f"oracle absent: {path.name}")
    given = np.load(path, allow_pickle=False)
    classes = int(given[f"{case}_classes"])
    histograms = [confusion(*maps, classes) for maps in zip(given[f"{case}_gt"], given[f"{case}_pred"], strict=True)]
    total = np.sum(histograms, axis=0)
    assert np.array_equal(total, given[f"{case}_hist"])
    result = scores(total)
    keys = {
        "pixel_accuracy": "pixel_acc", "mean_accuracy": "mean_acc", "mean_iu": "mean_iu", "fw_iu": "fw_iu",
        "class_accuracy": "acc_nan", "class_iu": "iu_nan",
    }
    for name, key in keys.items():
        np.testing.assert_allclose(np.array(result[name], np.float64), given[f"{case}_{key}"], rtol=0, atol=1e-12)
    counts = np.stack([label_counts(truth, classes) for truth in given[f"{case}_gt"]])
    expected = given[f"{case}_median_frequency_weights"]
    np.testing.assert_allclose(median_frequency_weights(counts), expected, rtol=1e-12)
    assert np.array_equal(palette(), given["palette"])
