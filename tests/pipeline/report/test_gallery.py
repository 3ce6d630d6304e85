import numpy as np
import pytest

from pipeline.report.gallery import FALSE_ALARM, HIT, LABELLED, MISS, Album, choose_images, marks_of, operating_points

A, B, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 60, 60)


class TestOperatingPoints:
    def test_best_f1(self, make_record, make_matches):
        """Hits at 0.9 and 0.5, false alarms at 0.7, 0.3: F1 of 2 objects is 2/3, 1/2, 4/5, 2/3."""
        rows = [(0, 0, 0.9, A), (0, 0, 0.7, FAR), (0, 0, 0.5, B), (0, 0, 0.3, FAR)]
        assert operating_points(make_matches([make_record("x", [A, B], [0, 0])], ("a",), rows)) == [np.float32(0.5)]

    def test_equal_scores_count_together(self, make_record, make_matches):
        """The hit comes first of those at 0.5: alone 4/5, better than 2/4 at 0.9; with all five false alarms 4/10, worse."""
        rows = [(0, 0, 0.9, A), (0, 0, 0.5, B), *5 * [(1, 0, 0.5, FAR)]]
        images = [make_record("x", [A, B, FAR], [0, 0, 0]), make_record("y")]
        assert operating_points(make_matches(images, ("a",), rows)) == [np.float32(0.9)]

    def test_detections_of_difficult_objects_do_not_count(self, make_record, make_matches):
        """Without them F1 is 2/3 at 0.9 and 1 at 0.5; with them 4/7 at 0.5."""
        record = make_record("x", [A, B, FAR], [0, 0, 0])
        record.difficult[2] = True
        rows = [(0, 0, 0.9, A), *3 * [(0, 0, 0.7, FAR)], (0, 0, 0.5, B)]
        assert operating_points(make_matches([record], ("a",), rows)) == [np.float32(0.5)]

    def test_of_equal_f1_the_higher_score(self, make_record, make_matches):
        rows = [(0, 0, 0.9, A), (0, 0, 0.8, FAR), (0, 0, 0.7, FAR), (0, 0, 0.6, B)]
        assert operating_points(make_matches([make_record("x", [A, B], [0, 0])], ("a",), rows)) == [np.float32(0.9)]

    def test_no_hit_and_no_detection(self, make_record, make_matches):
        matches = make_matches([make_record("x", [A], [0])], ("a", "b"), [(0, 0, 0.9, FAR)])
        assert operating_points(matches).tolist() == [np.inf, np.inf]
        assert [mark.kind for mark in marks_of(matches, [make_record("x", [A], [0])], 0, operating_points(matches))] == [MISS]


def test_marks(make_record, make_matches):
    """Of image y: the second hit of class b is below its point, so that its object is missed; difficult ones are neither."""
    record = make_record("y", [A, B, FAR], [0, 1, 1])
    record.difficult[2] = True
    images = [make_record("x"), record]
    rows = [(1, 0, 0.9, A), (1, 0, 0.8, A), (1, 1, 0.3, B), (1, 1, 0.9, FAR), (0, 0, 1.0, A)]
    marks = marks_of(make_matches(images, ("a", "b"), rows), images, 1, np.array([0.5, 0.5]))
    assert [(mark.kind, mark.name, mark.box) for mark in marks] == [(MISS, "b", B), (FALSE_ALARM, "a", A), (HIT, "a", A)]
    assert marks[0].score is None
    assert [(mark.score, mark.overlap) for mark in marks[1:]] == [(pytest.approx(0.8), 1), (pytest.approx(0.9), 1)]


def test_only_the_surest_false_alarms_are_labelled(make_record, make_matches):
    rows = [(0, place % 2, place / 10, FAR) for place in range(LABELLED + 3)]
    marks = marks_of(make_matches([make_record("x")], ("a", "b"), rows), [make_record("x")], 0, np.zeros(2))
    assert [mark.score for mark in marks] == sorted(mark.score for mark in marks)
    assert [mark.labelled for mark in marks] == [False] * 3 + [True] * LABELLED


def test_images_from_sure_to_unsure(make_record, make_matches):
    """Best scores 0.2, none, 0.9, 0.5, 0.5: every other one of the order 2, 3, 4, 0, 1."""
    images = [make_record(str(number)) for number in range(5)]
    matches = make_matches(images, ("a",), [(0, 0, 0.2, A), (2, 0, 0.1, A), (2, 0, 0.9, B), (3, 0, 0.5, A), (4, 0, 0.5, A)])
    assert choose_images(matches, 3) == [2, 4, 1]
    assert choose_images(matches, 9) == [2, 3, 4, 0, 1]
    assert choose_images(make_matches(images, ("a",), []), 2) == [0, 4]


def test_album_holds_an_image_once(make_record):
    read = []
    album = Album(lambda record: read.append(record.id) or np.zeros((60, 80, 3), np.uint8), 40)
    pictures = [album.add(make_record(name)) for name in ("a/b", "c", "a/b")]
    assert read == ["a/b", "c"]
    assert [picture.symbol for picture in pictures] == ["image-0", "image-1", "image-0"]
    assert (pictures[0].width, pictures[0].height) == (80, 60)
