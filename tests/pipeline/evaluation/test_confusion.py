"""The confusion matrix: worked by hand, and what holds for any."""

import numpy as np
import pytest

from pipeline.evaluation.confusion import Confusion, confusion_matrix, confusion_table, frequent
from pipeline.evaluation.operating_points import operating_points
from pipeline.evaluation.voc_ap import IGNORED, TRUE_POSITIVE, match_detections

A, B, C, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (80, 80, 90, 90)
NAMES = ("cat", "dog")
ALL = np.array([-np.inf, -np.inf])


def matrix_of(make_matches, images, rows, points=ALL):
    return confusion_matrix(make_matches(images, NAMES, rows), images, points).matrix.tolist()


class TestByHand:
    def test_each_kind_once(self, make_image, make_matches):
        """Two cats and a dog: a cat is found, the other is taken for a dog, the dog is missed; a false alarm of each class."""
        images = [make_image("x", [A, B, C], [0, 0, 1])]
        rows = [(0, 0, 0.9, A), (0, 1, 0.8, B), (0, 0, 0.7, FAR), (0, 1, 0.6, FAR)]
        assert matrix_of(make_matches, images, rows) == [[1, 1, 0], [0, 0, 1], [1, 1, 0]]

    def test_finding_again_is_a_false_alarm(self, make_image, make_matches):
        rows = [(0, 0, 0.9, A), (0, 0, 0.8, A)]
        assert matrix_of(make_matches, [make_image("x", [A], [0])], rows) == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]

    def test_a_found_object_is_confused_with_nothing(self, make_image, make_matches):
        """A cat and a dog are seen on one cat: the dog is a false alarm, whichever scores higher."""
        for scores in (0.9, 0.8), (0.8, 0.9):
            rows = [(0, 0, scores[0], A), (0, 1, scores[1], A)]
            assert matrix_of(make_matches, [make_image("x", [A], [0])], rows) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]

    def test_two_wrong_detections_on_one_object_are_one_confusion(self, make_image, make_matches):
        rows = [(0, 1, 0.9, A), (0, 1, 0.8, (0, 0, 10, 9))]
        assert matrix_of(make_matches, [make_image("x", [A], [0])], rows) == [[0, 1, 0], [0, 0, 0], [0, 1, 0]]

    def test_one_wrong_detection_on_two_objects_is_one_confusion(self, make_image, make_matches):
        """It takes the cat that it overlaps more; the other is missed."""
        images = [make_image("x", [(0, 0, 10, 10), (0, 0, 10, 8)], [0, 0])]
        assert matrix_of(make_matches, images, [(0, 1, 0.9, (0, 0, 10, 8))]) == [[0, 1, 1], [0, 0, 0], [0, 0, 0]]

    def test_the_largest_overlap_is_taken_first(self, make_image, make_matches):
        """Boxes of 10 and 8 on cats of 10 and 6: 10-10 first (IoU 1), then 8-6 (0.75), though 8-10 has 0.8."""
        images = [make_image("x", [(0, 0, 10, 10), (0, 0, 10, 6)], [0, 0])]
        rows = [(0, 1, 0.9, (0, 0, 10, 8)), (0, 1, 0.8, (0, 0, 10, 10))]
        assert matrix_of(make_matches, images, rows) == [[0, 2, 0], [0, 0, 0], [0, 0, 0]]

    def test_an_overlap_of_half_is_none(self, make_image, make_matches):
        images = [make_image("x", [A], [0])]
        assert matrix_of(make_matches, images, [(0, 1, 0.9, (0, 0, 10, 5))]) == [[0, 0, 1], [0, 0, 0], [0, 1, 0]]

    def test_difficult_objects_are_nowhere(self, make_image, make_matches):
        """The cat on the difficult cat counts nowhere; a dog on it is a false alarm, as in VOC's evaluation."""
        images = [make_image("x", [A], [0], [True])]
        assert matrix_of(make_matches, images, [(0, 0, 0.9, A)]) == [[0, 0, 0], [0, 0, 0], [0, 0, 0]]
        assert matrix_of(make_matches, images, [(0, 1, 0.9, A)]) == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]

    def test_scores_below_the_point_are_nowhere(self, make_image, make_matches):
        images = [make_image("x", [A, B], [0, 0]), make_image("y")]
        rows = [(0, 0, 0.9, A), (0, 1, 0.4, B), (1, 0, 0.2, FAR), (1, 1, 0.5, FAR)]
        assert matrix_of(make_matches, images, rows, np.float32([0.9, 0.5])) == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]

    def test_nothing_found_and_nothing_there(self, make_image, make_matches):
        assert matrix_of(make_matches, [make_image("x", [A, B], [0, 1])], []) == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
        assert matrix_of(make_matches, [make_image("x")], []) == [[0, 0, 0], [0, 0, 0], [0, 0, 0]]


class TestAlways:
    @pytest.mark.parametrize("seed", range(5))
    def test_each_object_and_each_detection_is_in_one_cell(self, make_split, seed):
        images, classes, detections = make_split(np.random.default_rng(seed), 40, 5, 8)
        matches = match_detections(detections, images, classes)
        for points in operating_points(matches), np.full(5, -np.inf), np.full(5, np.inf):
            chosen = (detections.score >= points[detections.class_index]) & (matches.outcome != IGNORED)
            matrix = confusion_matrix(matches, images, points).matrix
            assert matrix.sum(axis=1)[:-1].tolist() == matches.num_positives.sum(axis=0).tolist()
            assert matrix.sum(axis=0)[:-1].tolist() == np.bincount(detections.class_index[chosen], minlength=5).tolist()
            hits = chosen & (matches.outcome == TRUE_POSITIVE)
            assert matrix.diagonal()[:-1].tolist() == np.bincount(detections.class_index[hits], minlength=5).tolist()
            assert matrix[-1, -1] == 0
            assert (matrix >= 0).all()

    def test_the_default_is_the_best_f1(self, make_split):
        images, classes, detections = make_split(np.random.default_rng(9), 20, 3, 5)
        matches = match_detections(detections, images, classes)
        confusion = confusion_matrix(matches, images)
        assert confusion.scores.tolist() == operating_points(matches).tolist()
        again = Confusion.from_json(confusion.to_json())
        assert (again.classes, again.to_json()) == (confusion.classes, confusion.to_json())
        assert confusion.to_json()["matrix"] == confusion_matrix(matches, images, confusion.scores).matrix.tolist()


class TestTable:
    def test_counts_matrix_and_most_frequent(self, make_image, make_matches):
        images = [make_image("x", [A, B, C], [0, 0, 1]), make_image("y", [A], [1])]
        rows = [(0, 0, 0.9, A), (0, 1, 0.8, B), (0, 0, 0.7, FAR), (1, 0, 0.6, A)]
        confusion = confusion_matrix(make_matches(images, NAMES, rows), images, np.array([0.5, -np.inf]))
        assert confusion_table(confusion).splitlines() == [
            "class  from score  objects  found  confused  missed  detections  on another class  false alarms",
            "-----------------------------------------------------------------------------------------------",
            "cat          0.50        2      1         1       0           3                 1             1",
            "dog             -        2      0         1       1           1                 1             0",
            "",
            "objects (rows), detections (columns)  1  2  background",
            "------------------------------------------------------",
            "1 cat                                 1  1           0",
            "2 dog                                 1  0           1",
            "background                            1  0           0",
            "",
            "most frequent: object of  taken for  times",
            "------------------------------------------",
            "cat                             dog      1",
            "dog                             cat      1",
        ]
        assert frequent(confusion, 1) == [("cat", "dog", 1)]

    def test_many_classes_have_no_matrix(self, make_image, make_matches):
        names = tuple(f"class {number}" for number in range(21))
        images = [make_image("x", [A], [20])]
        text = confusion_table(confusion_matrix(make_matches(images, names, []), images))
        assert len(text.splitlines()) == 23
        assert "columns" not in text
