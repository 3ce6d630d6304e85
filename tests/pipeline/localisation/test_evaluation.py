"""Figures of the localiser on a split: which images count, groups of images, and the tables."""

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.localisation.evaluation import evaluate, localisation_table, truth_of, variants_table
from pipeline.localisation.localise import Predictions
from pipeline.report.gallery import FALSE_ALARM, HIT, MISS
from pipeline.report.localisation import choose_images, marks_of

CLASSES = ("cat", "one object")  # the latter is also the name of a row of the table


@pytest.fixture
def split(make_record):
    """A cat alone; a cat and a smaller other; an image without objects."""
    return [
        make_record("a", [[0, 0, 40, 30]], [0]), make_record("b", [[0, 0, 40, 40], [50, 0, 60, 10]], [0, 1]), make_record("c"),
    ]


def predicted(scores, boxes):
    boxes = np.array(boxes, np.float32)
    return Predictions(np.array(scores, np.float32), np.repeat(boxes[:, None], 2, axis=1))


@pytest.fixture
def predictions():
    """A right guess; the right box with the wrong class; and one for the image without objects."""
    return predicted([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5]], [[0, 0, 40, 30], [0, 0, 40, 40], [0, 0, 1, 1]])


def figures(predictions, split):
    mean_box = np.array([0, 0, 0.5, 0.5])
    return evaluate(predictions, split, CLASSES, mean_box, resamples=50, generator=np.random.default_rng(0))


def test_figures(split, predictions):
    evaluation = figures(predictions, split)
    assert (evaluation["images"], evaluation["images_without_object"]) == (2, 1)
    errors = [evaluation[name] for name in ("top1_error", "top1_class_error", "top5_error", "box_error")]
    assert errors == [0.5, 0.5, 0, 0]
    assert evaluation["mean_iou"] == 1
    assert evaluation["mean_box_error"] == 0  # 40 x 30 pixels: IoU 1 and 0.75
    assert (evaluation["one_object"]["images"], evaluation["one_object"]["top1_error"]) == (1, 0)
    assert evaluation["classes"]["cat"]["images"] == 2
    assert evaluation["classes"]["one object"]["images"] == 0
    assert evaluation["classes"]["one object"]["top1_error"] is None
    low, high = evaluation["interval_95"]["top1_error"]
    assert 0 <= low < 0.5 < high <= 1


def test_the_truth_is_all_objects_of_the_largest_ones_class(make_record):
    truth = truth_of([make_record("a", [[0, 0, 9, 9], [0, 0, 40, 40], [50, 0, 55, 5]], [0, 1, 1])])
    assert truth.label.tolist() == [1]
    assert truth.boxes[0].tolist() == [[0, 0, 40, 40], [50, 0, 55, 5]]


def test_without_any_object(make_record):
    with pytest.raises(PipelineError, match="without images"):
        figures(predicted([[0.5, 0.5]], [[0, 0, 1, 1]]), [make_record("a")])


def test_tables(split, predictions):
    evaluation = figures(predictions, split)
    lines = localisation_table(evaluation).splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["cat", "one"]
    assert lines[5].split()[:3] == ["one", "object", "1"]
    assert lines[6].split()[:4] == ["all", "images", "2", "50.0"]
    assert "1 images have no object" in lines[-1]
    assert variants_table({("agnostic", "conv"): evaluation}).splitlines()[2].split()[:4] == ["agnostic", "conv", "2", "50.0"]


class TestReport:
    def test_a_right_guess_is_a_hit_alone(self, split, predictions):
        (mark,) = marks_of(predictions, split[0], 0, CLASSES)
        assert (mark.kind, mark.name, mark.overlap) == (HIT, "cat", 1)

    def test_beside_a_wrong_guess_stands_the_largest_object(self, split, predictions):
        missed, guess = marks_of(predictions, split[1], 1, CLASSES)
        assert (missed.kind, missed.name, missed.box) == (MISS, "cat", (0, 0, 40, 40))
        assert (guess.kind, guess.name) == (FALSE_ALARM, "one object")

    def test_images_from_the_surest_on(self, split, predictions):
        assert choose_images(predictions, split, 5) == [0, 1]
        assert choose_images(predictions, split, 1) == [0]
