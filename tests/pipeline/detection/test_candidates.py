"""Candidates: the release's selection, and their files."""

import numpy as np
import pytest

from pipeline.boxes import nms
from pipeline.detection.candidates import (
    Candidates,
    load_candidates,
    save_candidates,
    select_detections,
    split_threshold,
    top_scoring,
)
from pipeline.errors import PipelineError
from tests.pipeline.detection.samples import random_boxes


class TestTopScoring:
    def test_by_hand(self):
        scores = np.array([[0.1, 5], [0.9, 4], [0.5, -np.inf], [0.5, 3]])
        boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [50, 0, 60, 10], [0, 0, 10, 5]])
        top = top_scoring(scores, boxes, max_per_image=3, nms_threshold=0.3)
        assert top.class_index.tolist() == [0, 0, 0, 1, 1, 1]
        np.testing.assert_array_equal(top.score, np.float32([0.9, 0.5, 0.5, 5, 4, 3]))
        assert top.boxes[:, [0, 3]].tolist() == [[0, 9], [50, 10], [0, 5], [0, 10], [0, 9], [0, 5]]
        assert top.survives.tolist() == [True, True, False, True, False, False]

    def test_suppresses_each_class_among_its_own_boxes(self):
        generator = np.random.default_rng(1)
        scores, boxes = generator.normal(size=(50, 4)), random_boxes(generator, 50, 4)
        top = top_scoring(scores, boxes, max_per_image=20)
        assert len(top.score) == 80
        for label in range(4):
            best = np.argsort(-scores[:, label].astype(np.float32), kind="stable")[:20]
            of_class = top.class_index == label
            np.testing.assert_array_equal(top.boxes[of_class], boxes[best, label])
            kept = np.flatnonzero(top.survives[of_class])
            np.testing.assert_array_equal(kept, nms(boxes[best, label], -np.arange(20), 0.3))

    def test_a_suppressed_candidate_still_takes_a_place(self):
        boxes = np.tile(np.float32([[0, 0, 10, 10]]), (3, 1))
        boxes[2] += 50
        top = top_scoring(np.array([[3.0], [2.0], [1.0]]), boxes, max_per_image=2)
        assert top.survives.tolist() == [True, False]

    def test_no_regions(self):
        top = top_scoring(np.zeros((0, 3)), np.zeros((0, 4)))
        assert [len(getattr(top, name)) for name in ("class_index", "score", "boxes", "survives")] == [0, 0, 0, 0]
        assert top.boxes.shape == (0, 4)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_refuses_scores_that_cannot_be_ranked(self, value):
        with pytest.raises(PipelineError, match=f"region 1, class 0: score {value}"):
            top_scoring(np.array([[0.0], [value]]), np.zeros((2, 4)))


def rcnn_test(scores_of_images, max_per_image, max_per_set):
    """The running threshold of rcnn_test.m for one class: indices kept in each image, before suppression."""
    threshold, pool, kept = -np.inf, [], []
    for scores in scores_of_images:
        above = [index for index in range(len(scores)) if scores[index] > threshold]
        kept.append(sorted(above, key=lambda index: -scores[index])[:max_per_image])
        pool = sorted(pool + [scores[index] for index in kept[-1]], reverse=True)
        if len(pool) > max_per_set:
            pool = pool[:max_per_set]
            threshold = pool[-1]
    return [[index for index in indices if scores[index] >= threshold]
            for scores, indices in zip(scores_of_images, kept, strict=True)]


class TestSelection:
    def test_split_threshold_by_hand(self):
        scores = np.float32([5, 1, 4, 2, 3])
        assert split_threshold(scores, num_images=2, mean_per_image=2) == 2
        assert split_threshold(scores, num_images=1, mean_per_image=2) == 4
        assert split_threshold(scores, num_images=5, mean_per_image=1) == -np.inf
        assert split_threshold(np.zeros(0, np.float32), 3) == -np.inf
        assert split_threshold(np.arange(41), num_images=1) == 1

    def test_selects_what_the_release_selects(self):
        generator = np.random.default_rng(2)
        sizes = [30, 0, 1, 60, 25, 40]
        scores = [generator.normal(generator.normal(), 1, (size, 2)).astype(np.float32) for size in sizes]
        boxes = [random_boxes(generator, size) for size in sizes]
        candidates = [top_scoring(score, box, max_per_image=20) for score, box in zip(scores, boxes, strict=True)]
        top = select_detections(candidates, "abcdef", ("cat", "dog"), mean_per_image=7)
        expected = {}
        for label in range(2):
            kept = rcnn_test([score[:, label] for score in scores], 20, 7 * len(sizes))
            assert sum(map(len, kept)) == 42
            for image, indices in enumerate(kept):
                left = nms(boxes[image][indices], scores[image][indices, label], 0.3)
                expected[image, label] = [scores[image][indices[index], label] for index in left]
        for (image, label), values in expected.items():
            of_group = (top.image_index == image) & (top.class_index == label)
            np.testing.assert_array_equal(top.score[of_group], np.float32(values))

    def test_each_class_has_its_own_threshold_and_ties_stay(self):
        candidates = [Candidates(np.int32([0, 0, 1, 1]), np.float32([9, 8, 0.2, 0.1]), np.zeros((4, 4), np.float32),
                                 np.ones(4, bool)) for _ in range(2)]
        top = select_detections(candidates, ("x", "y"), ("cat", "dog"), mean_per_image=1)
        assert top.score.tolist() == np.float32([9, 0.2, 9, 0.2]).tolist()
        everything_ties = [Candidates(np.int32([0, 0]), np.float32([1, 1]), np.zeros((2, 4), np.float32), np.ones(2, bool))]
        assert len(select_detections(everything_ties, ("x",), ("cat",), mean_per_image=1)) == 2

    def test_needs_candidates_of_every_image(self):
        with pytest.raises(PipelineError, match="candidates of 0 images for a split of 1"):
            select_detections([], ("x",), ("cat",))
        with pytest.raises(PipelineError, match="candidates of 0 images for a split of 0"):
            select_detections([], (), ("cat",))

    def test_candidates_of_a_shard_come_back_from_disk(self, tmp_path):
        generator = np.random.default_rng(3)
        for sizes in ([4], [3, 0, 5, 0], [0]):
            candidates = [top_scoring(generator.normal(size=(size, 2)), random_boxes(generator, size)) for size in sizes]
            save_candidates(tmp_path / "shard.npz", candidates)
            loaded = load_candidates(tmp_path / "shard.npz")
            assert len(loaded) == len(candidates)
            for restored, original in zip(loaded, candidates, strict=True):
                for name in ("class_index", "score", "boxes", "survives"):
                    assert getattr(restored, name).dtype == getattr(original, name).dtype
                    np.testing.assert_array_equal(getattr(restored, name), getattr(original, name))
        with pytest.raises(PipelineError, match=r"absent\.npz"):
            load_candidates(tmp_path / "absent.npz")
