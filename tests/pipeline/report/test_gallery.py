import numpy as np
import pytest

from pipeline.report.gallery import FALSE_ALARM, HIT, LABELLED, MISS, Album, choose_images, marks_of

A, B, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 60, 60)


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
