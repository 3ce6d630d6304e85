"""Errors of classification + localisation: hand-made images, a slow version, and independent figures."""

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.evaluation.localisation_error import (
    FIGURES,
    Truth,
    best_guesses,
    guess_errors,
    image_figures,
    resampled_means,
)

BOX = np.array([0.0, 0, 10, 10])
HALF = np.array([0.0, 0, 10, 5])  # IoU 0.5 with BOX: not more than 0.5
MORE = np.array([0.0, 0, 10, 6])
FAR = np.array([20.0, 20, 30, 30])


def figures_of(truth, scores, boxes, mean_boxes):
    return {name: column.tolist() for name, column in zip(FIGURES, image_figures(truth, scores, boxes, mean_boxes).T)}


class TestHandMade:
    def test_a_guess_needs_both_the_label_and_more_than_half(self):
        truth = Truth(np.array([1, 1, 1, 1]), [BOX[None]] * 4)
        labels = np.array([[1], [1], [0], [1]])
        boxes = np.stack([MORE, HALF, MORE, FAR])[:, None]
        wrong, wrong_class = guess_errors(truth, labels, boxes)
        assert wrong.tolist() == [False, True, True, True]
        assert wrong_class.tolist() == [False, False, True, False]

    def test_label_and_box_must_be_of_one_guess(self):
        truth = Truth(np.array([1]), [BOX[None]])
        assert guess_errors(truth, np.array([[1, 0]]), np.stack([FAR, BOX])[None])[0].tolist() == [True]
        assert guess_errors(truth, np.array([[0, 1]]), np.stack([FAR, BOX])[None])[0].tolist() == [False]

    def test_any_object_of_the_label_will_do(self):
        truth = Truth(np.array([0]), [np.stack([FAR, BOX])])
        assert guess_errors(truth, np.array([[0]]), MORE[None, None])[0].tolist() == [False]

    def test_figures(self):
        """Three classes with a box each; the best guess of the second image is wrong, and its true class's box is far."""
        truth = Truth(np.array([0, 1]), [BOX[None], BOX[None]])
        scores = np.array([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]])
        boxes = np.stack([np.stack([MORE, FAR, FAR]), np.stack([BOX, FAR, BOX])])
        figures = figures_of(truth, scores, boxes, np.stack([HALF, BOX]))
        assert figures == {
            "top1_error": [0, 1], "top5_error": [0, 1], "top1_class_error": [0, 1], "top5_class_error": [0, 0],
            "box_error": [0, 1], "mean_box_error": [1, 0], "mean_iou": [pytest.approx(0.6), 0], "mean_box_iou": [0.5, 1],
        }

    def test_one_box_serves_all_classes(self):
        labels, boxes = best_guesses(np.array([[0.1, 0.2, 0.7]]), MORE[None, None], 2)
        assert labels.tolist() == [[2, 1]]
        assert np.array_equal(boxes, np.stack([MORE, MORE])[None])

    def test_equal_scores_keep_the_order_of_the_classes(self):
        assert best_guesses(np.zeros((1, 4)), np.zeros((1, 1, 4)), 5)[0].tolist() == [[0, 1, 2, 3]]


def slow_errors(truth, labels, boxes):
    """The definition, in loops."""
    errors = []
    for label, objects, guesses, guessed in zip(truth.label, truth.boxes, labels, boxes):
        error = True
        for guess, (x1, y1, x2, y2) in zip(guesses, guessed):
            for a1, b1, a2, b2 in objects:
                shared = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
                union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared
                error &= not (guess == label and shared / union > 0.5)
        errors.append(error)
    return errors


def test_agrees_with_the_definition_in_loops():
    rng = np.random.default_rng(0)

    def random_boxes(*shape):
        corner = rng.integers(0, 6, (*shape, 2))
        return np.concatenate([corner, corner + rng.integers(4, 10, (*shape, 2))], axis=-1).astype(float)

    truth = Truth(rng.integers(0, 3, 200), [random_boxes(rng.integers(1, 4)) for _ in range(200)])
    labels, boxes = rng.integers(0, 3, (200, 2)), random_boxes(200, 2)
    expected = slow_errors(truth, labels, boxes)
    assert 20 < sum(expected) < 180
    assert guess_errors(truth, labels, boxes)[0].tolist() == expected


def test_independent_figures(shared):
    path = shared / "oracles2" / "localisation.npz"
    if not path.is_file():
        pytest.skip("oracle absent: localisation.npz")
    with np.load(path, allow_pickle=False) as data:
        values = dict(data)
    truth = Truth(values["gt_label"], [boxes[:count] for boxes, count in zip(values["gt_boxes"], values["gt_count"])])
    means = {}
    for name, number in ("top1", 1), ("top5", 5):
        wrong, wrong_class = guess_errors(truth, values["pred_labels"][:, :number], values["pred_boxes"][:, :number])
        assert np.array_equal(wrong, values[f"{name}_localisation_error"])
        assert np.array_equal(wrong_class, values[f"{name}_classification_error"])
        means |= {f"{name}_localisation": wrong.mean(), f"{name}_classification": wrong_class.mean()}
    box_error = truth.best_overlaps(values["pred_boxes"][:, :1])[:, 0] <= 0.5
    assert np.array_equal(box_error, values["first_box_error_given_label"])
    means["box_given_label"] = box_error.mean()
    assert means == pytest.approx(dict(zip(values["error_names"].tolist(), values["errors"])), abs=1e-9)


class TestResamples:
    def test_mean_and_spread_are_those_of_the_mean(self):
        values = np.random.default_rng(1).random((50, 2))
        samples = resampled_means(values, np.ones((50, 1), bool), 4000, np.random.default_rng(2))[:, 0]
        assert samples.mean(axis=0) == pytest.approx(values.mean(axis=0), abs=0.01)
        assert samples.std(axis=0) == pytest.approx(values.std(axis=0) / 50**0.5, rel=0.1)

    def test_a_group_is_resampled_with_the_whole(self):
        """Its share of a resample varies, and a resample without any image of it has no mean."""
        values, groups = np.array([[1.0], [0], [0]]), np.array([[True, True], [False, True], [False, True]])
        samples = resampled_means(values, groups, 500, np.random.default_rng(3))[..., 0]
        assert set(samples[:, 0][~np.isnan(samples[:, 0])]) == {1}
        assert np.array_equal(np.isnan(samples[:, 0]), samples[:, 1] == 0)
        assert np.isnan(samples[:, 0]).mean() == pytest.approx((2 / 3) ** 3, abs=0.07)

    def test_without_images(self):
        with pytest.raises(PipelineError, match="without images"):
            resampled_means(np.zeros((0, 1)), np.zeros((0, 1), bool), 5, np.random.default_rng(0))
