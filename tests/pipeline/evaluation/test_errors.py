"""Errors by kind and by object size, worked by hand, and what must hold for any detections."""

import json

import numpy as np
import pytest

from pipeline.detection.detections import Detections
from pipeline.errors import PipelineError
from pipeline.evaluation.errors import (
    KINDS,
    NO_ERROR,
    SIZES,
    VOC_SIMILAR,
    analyse_errors,
    false_positive_kinds,
    similar_groups,
    size_of,
)
from pipeline.evaluation.voc_ap import IGNORED, TRUE_POSITIVE, match_detections

CLASSES = ("cat", "dog", "car")
ANIMALS = (("cat", "dog"),)
CAT, DOG, CAR = [0, 0, 10, 10], [100, 0, 110, 10], [200, 0, 210, 10]
# Moved to the right by s, a box of 10 x 10 has IoU (10 - s) / (10 + s) with where it was: a tenth at 8.18.
ON, OFF = 8.1, 8.3


def moved(box, by):
    return [box[0] + by, box[1], box[2] + by, box[3]]


@pytest.fixture
def matched(make_image):
    """matched(rows, boxes, labels, difficult) -> matches and images: one image; rows of a class name and a box, best first."""

    def match(rows, boxes=(CAT, DOG, CAR), labels=(0, 1, 2), difficult=None):
        names, detected_boxes = zip(*rows, strict=True)
        labels_found = [CLASSES.index(name) for name in names]
        detections = Detections(("a",), CLASSES, [0] * len(rows), labels_found, 1 - np.arange(len(rows)) / 100, detected_boxes)
        images = [make_image("a", boxes, labels, difficult)]
        return match_detections(detections, images, CLASSES), images

    return match


class TestKinds:
    @pytest.mark.parametrize(("box", "expected"), [
        (moved(CAT, 1), NO_ERROR),
        ([0, 0, 10, 20], "localisation"),  # IoU 0.5 exactly is no hit
        (moved(CAT, ON), "localisation"),
        (moved(CAT, OFF), "background"),
        (DOG, "similar"),
        (moved(DOG, ON), "similar"),
        (CAR, "other"),
        (moved(CAR, ON), "other"),
        (moved(CAR, OFF), "background"),
        ([500, 500, 510, 510], "background"),
    ])
    def test_of_one_detection(self, matched, box, expected):
        (kind,) = false_positive_kinds(*matched([("cat", box)]), ANIMALS)
        assert (kind if kind == NO_ERROR else KINDS[kind]) == expected

    def test_a_tenth_is_enough(self, matched):
        # 10 of 100 square pixels, a tenth exactly.
        (kind,) = false_positive_kinds(*matched([("cat", [0, 0, 1, 10])]), ANIMALS)
        assert KINDS[kind] == "localisation"

    def test_again(self, matched):
        kinds = false_positive_kinds(*matched([("cat", CAT), ("cat", CAT)]), ANIMALS)
        assert kinds.tolist() == [NO_ERROR, KINDS.index("localisation")]

    def test_the_own_class_comes_first_then_a_similar_one(self, matched):
        boxes = [moved(CAT, ON), moved(CAT, 1), CAT]  # cat, dog, car: the worse the fit, the nearer the class
        assert KINDS[false_positive_kinds(*matched([("cat", CAT)], boxes), ANIMALS)[0]] == "localisation"
        boxes[0] = DOG
        assert KINDS[false_positive_kinds(*matched([("cat", CAT)], boxes), ANIMALS)[0]] == "similar"
        assert KINDS[false_positive_kinds(*matched([("cat", CAT)], boxes), ())[0]] == "other"

    def test_similarity_does_not_pass_from_group_to_group(self, matched):
        groups = (("cat", "dog"), ("dog", "car"))
        kinds = false_positive_kinds(*matched([("cat", CAR), ("cat", DOG), ("dog", CAR)]), groups)
        assert [KINDS[kind] for kind in kinds] == ["other", "similar", "similar"]

    def test_a_difficult_object_is_no_background(self, matched):
        rows = [("cat", CAT), ("cat", moved(CAT, ON)), ("dog", CAT)]
        kinds = false_positive_kinds(*matched(rows, difficult=[True, False, False]), ANIMALS)
        assert kinds.tolist() == [NO_ERROR, KINDS.index("localisation"), KINDS.index("similar")]

    def test_other_images_do_not_matter(self, make_image):
        images = [make_image("a", [CAT], [0]), make_image("b"), make_image("c", [CAT], [2])]
        detections = Detections(("a", "b", "c"), CLASSES, [0, 1, 2], [0, 0, 0], [0.9, 0.8, 0.7], [CAT] * 3)
        kinds = false_positive_kinds(match_detections(detections, images, CLASSES), images, ANIMALS)
        assert kinds.tolist() == [NO_ERROR, KINDS.index("background"), KINDS.index("other")]


class TestBestDetections:
    def test_as_many_as_objects(self, matched):
        rows = [("cat", DOG), ("cat", CAT), ("cat", CAR), ("cat", CAR), ("dog", DOG)]
        errors = analyse_errors(*matched(rows, [CAT, [50, 0, 60, 10], [70, 0, 80, 10], DOG, CAR], [0, 0, 0, 1, 2]), ANIMALS)
        cat = errors.classes["cat"]
        assert (cat.num_objects, cat.true_positives) == (3, 1)
        assert cat.false_positives == {"localisation": 0, "similar": 1, "other": 1, "background": 0}
        dog, car = errors.classes["dog"], errors.classes["car"]
        assert (dog.num_objects, dog.true_positives, sum(dog.false_positives.values())) == (1, 1, 0)
        assert (car.num_objects, car.true_positives, sum(car.false_positives.values())) == (1, 0, 0)

    def test_ignored_ones_have_no_rank(self, matched):
        rows = [("cat", CAT), ("cat", CAT), ("cat", [300, 0, 310, 10])]
        cat = analyse_errors(*matched(rows, [CAT, DOG], [0, 0], [True, False]), ()).classes["cat"]
        assert (cat.num_objects, cat.false_positives["background"]) == (1, 1)


class TestSizes:
    def test_of_ten(self):
        areas = np.array([10, 1, 2, 3, 4, 5, 6, 7, 8, 9.0])
        assert [SIZES[size] for size in size_of(areas)] == ["XL", "XS", "S", "S", "M", "M", "M", "M", "L", "L"]

    def test_equal_areas_are_of_one_size(self):
        assert size_of(np.ones(7)).tolist() == [SIZES.index("M")] * 7
        assert size_of(np.array([1.0] * 3 + [2.0] * 7)).tolist() == [1] * 3 + [2] * 7
        assert size_of(np.zeros(0)).tolist() == []

    def test_recall_by_size_of_each_class(self, matched):
        boxes = [[100 * side, 0, 101 * side, side] for side in range(1, 11)]
        rows = [("cat", boxes[index]) for index in (1, 7, 9)] + [("dog", boxes[0])]
        boxes += [[0, 300, 10, 310], [20, 300, 80, 360]]  # a small dog, a difficult cat
        errors = analyse_errors(*matched(rows, boxes, [0] * 10 + [1, 0], [False] * 11 + [True]), ())
        cat, dog = errors.classes["cat"], errors.classes["dog"]
        assert cat.objects == {"XS": 1, "S": 2, "M": 4, "L": 2, "XL": 1}
        assert cat.recall == {"XS": 0, "S": 0.5, "M": 0, "L": 0.5, "XL": 1}
        assert (dog.objects["M"], dog.recall["M"]) == (1, 0)
        assert np.isnan(dog.recall["XL"])


class TestGroups:
    def test_of_voc(self):
        flying = similar_groups(("aeroplane", "bird", "zebra"))
        assert flying == (("aeroplane", "bird"),)
        assert len(set().union(*VOC_SIMILAR)) == 17  # of 20: bottle, pottedplant and tvmonitor are like no other
        assert similar_groups(("zero", "one")) == ()

    def test_given(self):
        assert similar_groups(CLASSES, ("dog+car",)) == (("dog", "car"),)
        with pytest.raises(PipelineError, match="similar classes: dgo: no such class; there are cat, dog, car"):
            similar_groups(CLASSES, ("cat+dgo",))


def test_json(matched):
    data = json.loads(json.dumps(analyse_errors(*matched([("cat", DOG)]), ANIMALS).to_json(), allow_nan=False))
    assert data["similar"] == [["cat", "dog"]]
    assert data["classes"]["cat"] == {
        "num_objects": 1, "true_positives": 0,
        "false_positives": {"localisation": 0, "similar": 1, "other": 0, "background": 0},
        "objects": {"XS": 0, "S": 0, "M": 1, "L": 0, "XL": 0}, "found": {"XS": 0, "S": 0, "M": 0, "L": 0, "XL": 0},
        "recall": {"XS": None, "S": None, "M": 0, "L": None, "XL": None},
    }


@pytest.mark.parametrize("seed", range(5))
def test_what_adds_up(make_split, seed):
    images, classes, detections = make_split(np.random.default_rng(seed), 6, 3, 12)
    matches = match_detections(detections, images, classes)
    errors = analyse_errors(matches, images, [classes[:2]])
    for label, name in enumerate(classes):
        of_class, ranking = errors.classes[name], matches.ranking(label)
        assert of_class.num_objects == sum(of_class.objects.values()) == matches.num_positives[:, label].sum()
        ranked = np.count_nonzero(matches.outcome[ranking] != IGNORED)
        assert of_class.true_positives + sum(of_class.false_positives.values()) == min(of_class.num_objects, ranked)
        assert sum(of_class.found.values()) == np.count_nonzero(matches.outcome[ranking] == TRUE_POSITIVE)
