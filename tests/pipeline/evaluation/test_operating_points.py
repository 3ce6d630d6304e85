"""The score of a class's best F1."""

import numpy as np
import pytest

from pipeline.evaluation.operating_points import OperatingPoint, best_f1, counted, operating_points
from pipeline.evaluation.voc_ap import match_detections

A, B, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 60, 60)


class TestOperatingPoints:
    def test_best_f1(self, make_image, make_matches):
        """Hits at 0.9 and 0.5, false alarms at 0.7, 0.3: F1 of 2 objects is 2/3, 1/2, 4/5, 2/3."""
        rows = [(0, 0, 0.9, A), (0, 0, 0.7, FAR), (0, 0, 0.5, B), (0, 0, 0.3, FAR)]
        assert operating_points(make_matches([make_image("x", [A, B], [0, 0])], ("a",), rows)) == [np.float32(0.5)]

    def test_equal_scores_count_together(self, make_image, make_matches):
        """The hit comes first of those at 0.5: alone 4/5, better than 2/4 at 0.9; with all five false alarms 4/10, worse."""
        rows = [(0, 0, 0.9, A), (0, 0, 0.5, B), *5 * [(1, 0, 0.5, FAR)]]
        images = [make_image("x", [A, B, FAR], [0, 0, 0]), make_image("y")]
        assert operating_points(make_matches(images, ("a",), rows)) == [np.float32(0.9)]

    def test_detections_of_difficult_objects_do_not_count(self, make_image, make_matches):
        """Without them F1 is 2/3 at 0.9 and 1 at 0.5; with them 4/7 at 0.5."""
        record = make_image("x", [A, B, FAR], [0, 0, 0])
        record.difficult[2] = True
        rows = [(0, 0, 0.9, A), *3 * [(0, 0, 0.7, FAR)], (0, 0, 0.5, B)]
        assert operating_points(make_matches([record], ("a",), rows)) == [np.float32(0.5)]

    def test_of_equal_f1_the_higher_score(self, make_image, make_matches):
        rows = [(0, 0, 0.9, A), (0, 0, 0.8, FAR), (0, 0, 0.7, FAR), (0, 0, 0.6, B)]
        assert operating_points(make_matches([make_image("x", [A, B], [0, 0])], ("a",), rows)) == [np.float32(0.9)]

    def test_no_hit_and_no_detection(self, make_image, make_matches):
        matches = make_matches([make_image("x", [A], [0])], ("a", "b"), [(0, 0, 0.9, FAR)])
        assert operating_points(matches).tolist() == [np.inf, np.inf]
        assert [best_f1(matches, label) for label in (0, 1)] == [OperatingPoint(None, 0, 0, 1), OperatingPoint(None, 0, 0, 0)]

    def test_figures_of_a_point(self, make_image, make_matches):
        """At 0.5: two of two objects, one false alarm."""
        rows = [(0, 0, 0.9, A), (0, 0, 0.7, FAR), (0, 0, 0.5, B), (0, 0, 0.3, FAR)]
        point = best_f1(make_matches([make_image("x", [A, B], [0, 0])], ("a",), rows), 0)
        assert point == OperatingPoint(0.5, 2, 1, 2)
        assert (point.precision, point.recall, point.f1) == pytest.approx((2 / 3, 1, 4 / 5))
        assert point.to_json() == {"score": 0.5, "f1": 0.8, "precision": 2 / 3, "recall": 1, "objects": 2}

    def test_no_other_score_is_better(self, make_split):
        """Against the F1 of every score, counted anew."""
        images, classes, detections = make_split(np.random.default_rng(3), 30, 4, 6, score_levels=12)
        matches = match_detections(detections, images, classes)
        for label, point in enumerate(operating_points(matches)):
            of_class = (detections.class_index == label) & (matches.outcome != 2)
            objects = matches.num_positives[:, label].sum()

            def f1(score, of_class=of_class, objects=objects):
                outcome = matches.outcome[of_class & (detections.score >= score)]
                return 2 * (outcome == 1).sum() / (len(outcome) + objects)

            best = max(f1(score) for score in np.unique(detections.score[of_class]))
            assert f1(point) == best == pytest.approx(best_f1(matches, label).f1)
            assert all(f1(score) < best for score in np.unique(detections.score[of_class]) if score > point)
        assert (counted(matches, operating_points(matches)) == (
            detections.score >= operating_points(matches)[detections.class_index])).all()
