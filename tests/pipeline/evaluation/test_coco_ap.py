"""COCO's metrics: by hand, against VOC's AP where both must agree, and where they must not."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets.records import ImageRecord
from pipeline.detection.detections import Detections
from pipeline.errors import PipelineError
from pipeline.evaluation.coco_ap import METRICS, coco_table, evaluate_coco, too_crowded
from pipeline.evaluation.voc_ap import evaluate
from tests.tiers import examples

BOX = [0, 0, 40, 40]
RECALLS = np.linspace(0, 1, 101)


@pytest.fixture
def metrics(make_image):
    """metrics(boxes, rows, difficult) -> COCO's metrics and VOC's area AP: one image and class; rows of a score and a box."""

    def both(boxes, rows, difficult=None):
        image = make_image("a", boxes, [0] * len(boxes), difficult)
        scores, detected_boxes = zip(*rows, strict=True)
        detections = Detections(("a",), ("cat",), [0] * len(rows), [0] * len(rows), scores, detected_boxes)
        coco = evaluate_coco(detections, [image], ("cat",))
        assert coco.classes["cat"] == pytest.approx(coco.metrics["ap"], nan_ok=True)
        return coco.metrics, evaluate(detections, [image], ("cat",)).mean_ap_area

    return both


def test_objects_beyond_those_that_count(make_image):
    """101 and 100 objects of a class; difficult ones don't count."""
    full, more = make_image("a", [BOX] * 100, [0] * 100), make_image("b", [BOX] * 103, [0] * 101 + [1] * 2)
    assert too_crowded([full], 1) == (0, 0)
    assert too_crowded([full, more, make_image("c")], 2) == (1, 1)
    assert too_crowded([make_image("d", [BOX] * 180, [0] * 180, [False] * 110 + [True] * 70)], 1) == (1, 10)
    assert too_crowded([make_image("d", [BOX] * 180, [0] * 180, [True] * 180)], 1) == (0, 0)


class TestByHand:
    def test_overlaps_from_a_half_to_95_percent(self, metrics, capfd):
        coco, voc = metrics([BOX], [(0.9, [0, 0, 40, 30])])  # IoU 0.75, so a hit at 0.5, 0.55, ..., 0.75
        assert [coco[name] for name in ("ap", "ap_50", "ap_75", "ar_1", "ar_100")] == pytest.approx([0.6, 1, 1, 0.6, 0.6])
        assert voc == 1
        assert capfd.readouterr() == ("", "")

    def test_sizes_are_those_of_boxes(self, metrics):
        boxes = [[0, 0, 31, 33], [100, 0, 131, 34], [200, 0, 296, 97]]  # below 32 ** 2, below 96 ** 2, above
        coco, _ = metrics(boxes, [(0.9, boxes[0]), (0.8, boxes[2]), (0.7, [300, 0, 340, 40])])
        assert [coco[f"ap_{size}"] for size in ("small", "medium", "large")] == pytest.approx([1, 0, 1])
        assert [coco[f"ar_{size}"] for size in ("small", "medium", "large")] == pytest.approx([1, 0, 1])

    def test_best_1_10_and_100_detections_of_an_image(self, metrics):
        boxes = [[50 * index, 0, 50 * index + 40, 40] for index in range(12)]
        coco, _ = metrics(boxes, [(1 - index / 100, box) for index, box in enumerate(boxes)])
        assert [coco[name] for name in ("ar_1", "ar_10", "ar_100")] == pytest.approx([1 / 12, 10 / 12, 1])

    def test_101_recalls(self, metrics):
        boxes = [[50 * index, 0, 50 * index + 40, 40] for index in range(4)]
        rows = [(0.9, boxes[0]), (0.8, [0, 500, 40, 540]), (0.7, boxes[1]), (0.6, boxes[2])]
        coco, voc = metrics(boxes, rows)
        assert coco["ap_50"] == pytest.approx((26 * 1 + 50 * 0.75) / 101)  # recalls to 0.25 and to 0.75
        assert voc == pytest.approx((1 + 2 * 0.75) / 4)


class TestDifferencesFromVoc:
    def test_an_overlap_of_exactly_a_half(self, metrics):
        coco, voc = metrics([BOX], [(0.9, [0, 0, 40, 20])])
        assert (coco["ap_50"], voc) == (pytest.approx(1), 0)

    def test_second_choice(self, metrics):
        coco, voc = metrics([BOX, [0, 4, 40, 44]], [(0.9, BOX), (0.8, BOX)])
        assert (coco["ap_50"], voc) == (pytest.approx(1), 0.5)

    def test_a_small_box_on_a_difficult_object(self, metrics):
        boxes, rows = [[100, 100, 140, 140], BOX], [(0.9, [10, 10, 20, 20]), (0.8, [100, 100, 140, 140])]
        coco, voc = metrics(boxes, rows, [False, True])
        assert (coco["ap_50"], voc) == (pytest.approx(1), 0.5)

    def test_a_difficult_object_itself_counts_in_neither(self, metrics):
        coco, voc = metrics([[100, 100, 140, 140], BOX], [(0.9, BOX), (0.8, [100, 100, 140, 140])], [False, True])
        assert (coco["ap_50"], voc) == (pytest.approx(1), 1)


# Objects lie 100 apart; a detection is one of them shifted by up to 10 of its 40 pixels, which both take for a hit, or by 24 and
# more, which neither does: of a crowd, too, it covers less than half of itself then.
objects_of_images = st.lists(st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=4), min_size=3, max_size=3)
detections_near_objects = st.lists(st.tuples(
    st.integers(0, 2), st.integers(0, 1), st.integers(0, 3), st.sampled_from([0, 5, 10, 24, 30]), st.integers(0, 4),
), max_size=30)


@settings(max_examples=examples(100), deadline=None)
@given(objects_of_images, detections_near_objects)
def test_as_voc_but_for_101_recalls(objects, drawn):
    """Where objects are apart and no overlap is near one half, curves are the same; the mean at 101 recalls is near the area."""
    images = []
    for index, of_image in enumerate(objects):
        boxes = np.array([[100 * place, 0, 100 * place + 40, 40] for place in range(len(of_image))], np.float32).reshape(-1, 4)
        labels, difficult = np.array([values[0] for values in of_image], int), np.array([values[1] for values in of_image], bool)
        images.append(ImageRecord(str(index), "", "", 500, 100, boxes, labels, difficult))
    rows = [(image, label, score, 100 * place + shift, 0, 100 * place + shift + 40, 40)
            for image, label, place, shift, score in drawn]
    rows = np.array(rows, float).reshape(-1, 7)
    rows[:, 2] += np.arange(len(rows)) / 100  # no ties, which VOC's order and COCO's would break differently
    detections = Detections(("0", "1", "2"), ("a", "b"), *rows[:, :3].T, rows[:, 3:])
    coco = evaluate_coco(detections, images, ("a", "b")).metrics["ap_50"]
    voc = evaluate(detections, images, ("a", "b"))
    by_class = [mean_of_101(of_class) for of_class in voc.classes if of_class.num_positives]
    assert coco == pytest.approx(np.mean(by_class) if by_class else math.nan, abs=1e-9, nan_ok=True)
    assert not by_class or abs(coco - voc.mean_ap_area) <= 0.01


def mean_of_101(result) -> float:
    """Mean over 101 recalls of the largest precision there or beyond, from VOC's curve."""
    return sum(max([*result.precision[result.recall >= point], 0]) for point in RECALLS) / 101


def test_classes_and_images_without_objects(make_image):
    images = [make_image("a", [BOX], [0]), make_image("b")]
    detections = Detections(("a", "b"), ("cat", "dog"), [0, 1], [0, 1], [0.9, 0.8], [BOX, BOX])
    result = evaluate_coco(detections, images, ("cat", "dog"))
    assert [result.classes["cat"], result.metrics["ap"]] == pytest.approx([1, 1])
    assert math.isnan(result.classes["dog"])
    assert math.isnan(result.metrics["ap_small"])
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["metrics"].keys() == METRICS.keys()
    assert (document["classes"]["dog"], document["metrics"]["ap_small"]) == (None, None)


def test_no_detection(make_image):
    nothing = Detections(("a",), ("cat",), [], [], [], np.zeros((0, 4)))
    assert evaluate_coco(nothing, [make_image("a", [BOX], [0])], ("cat",)).metrics["ap"] == 0
    assert math.isnan(evaluate_coco(nothing, [make_image("a")], ("cat",)).metrics["ap"])


def test_detections_of_another_split(make_image):
    with pytest.raises(PipelineError, match="number 1 is a, expected b"):
        evaluate_coco(Detections(("a",), ("cat",), [], [], [], np.zeros((0, 4))), [make_image("b")], ("cat",))


def test_table(make_image):
    detections = Detections(("a",), ("dog",), [0], [0], [0.5], [[0, 0, 10, 7]])  # IoU 0.7: a hit at 0.5 to 0.7
    lines = coco_table(evaluate_coco(detections, [make_image("a", [[0, 0, 10, 10]], [0])], ("dog",))).splitlines()
    assert lines[0] == "COCO    AP   AP50  AP75  AP small  medium  large   AR1  AR10  AR100  AR small  medium  large"
    assert lines[2] == "mean  50.0  100.0   0.0      50.0       -      -  50.0  50.0   50.0      50.0       -      -"
