"""Greedy merging: cases by hand, and an independent slow version."""

import numpy as np
import pytest

from pipeline.boxes import iou
from pipeline.sliding_window.merging import match_score, merge_boxes


def test_match_score_by_hand():
    """A square of 10 and the same moved by 5: IoU 1/3, distance 5, diagonal 10 sqrt 2."""
    first, second = np.array([0.0, 0, 10, 10]), np.array([5.0, 0, 15, 10])
    assert match_score(first, first) == 0
    assert match_score(first, second) == pytest.approx(5 / np.sqrt(200) + 1 - 1 / 3)
    assert match_score(first, second + 100) > 1


def test_confidence_adds_up_and_boxes_are_averaged():
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60]], np.float32)
    merged, confidence = merge_boxes(boxes, np.array([0.75, 0.25, 0.6]), 0.7)
    np.testing.assert_array_equal(merged, [[0.5, 0, 10.5, 10], [50, 50, 60, 60]])
    np.testing.assert_allclose(confidence, [1, 0.6], rtol=1e-6)


def test_every_window_has_its_weight():
    """Merged in two steps, three boxes give the mean of the three."""
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [5, 0, 15, 10]], np.float32)
    ((merged,), (confidence,)) = merge_boxes(boxes, np.full(3, 0.5), 1.0)
    np.testing.assert_allclose(merged, [2, 0, 12, 10], rtol=1e-6)
    assert confidence == 1.5


def test_the_best_pair_is_merged_first():
    """1 and 2 match best; their mean is then too far from 0, which alone matches 1."""
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [5, 0, 15, 10]], np.float32)
    limit = match_score(boxes[0].astype(float), boxes[1].astype(float)) + 1e-6
    merged, confidence = merge_boxes(boxes, np.ones(3), limit)
    np.testing.assert_array_equal(merged, [[4.5, 0, 14.5, 10], [0, 0, 10, 10]])
    np.testing.assert_array_equal(confidence, [2, 1])


@pytest.mark.parametrize("number", [0, 1])
def test_none_and_one(number):
    boxes = np.array([[1, 2, 3, 4]] * number, np.float32).reshape(-1, 4)
    merged, confidence = merge_boxes(boxes, np.full(number, 0.5), 0.7)
    np.testing.assert_array_equal(merged, boxes)
    assert len(confidence) == number


def slow(boxes, confidence, threshold):
    """All pairs, again and again."""
    items = [(box, value) for box, value in zip(boxes.astype(float), confidence, strict=True)]
    while len(items) > 1:
        corners = np.array([box for box, _ in items])
        centres, sizes = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        diagonals = np.linalg.norm(sizes, axis=1)
        score = np.linalg.norm(centres[:, None] - centres[None], axis=2) / ((diagonals[:, None] + diagonals[None]) / 2)
        score += 1 - iou(corners, corners)
        np.fill_diagonal(score, np.inf)
        a, b = np.unravel_index(score.argmin(), score.shape)
        if score[a, b] > threshold:
            break
        total = items[a][1] + items[b][1]
        merged = (items[a][0] * items[a][1] + items[b][0] * items[b][1]) / total, total
        items = [item for number, item in enumerate(items) if number not in (a, b)] + [merged]
    return sorted(((value, *box) for box, value in items), reverse=True)


@pytest.mark.parametrize("threshold", [0.3, 0.7, 1.2])
def test_equals_the_slow_version(rng, threshold):
    corner = rng.uniform(0, 60, (60, 2))
    boxes = np.hstack([corner, corner + rng.uniform(10, 40, (60, 2))]).astype(np.float32)
    merged, confidence = merge_boxes(boxes, rng_scores := rng.random(60), threshold)
    assert 1 < len(merged) < 60
    np.testing.assert_allclose(np.column_stack([confidence, merged]), slow(boxes, rng_scores, threshold), rtol=1e-5)
