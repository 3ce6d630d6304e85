"""VOC average precision: by hand, against py-faster-rcnn's results, and against a version for one detection at a time."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from pipeline.boxes import iou
from pipeline.detection.detections import Detections
from pipeline.detection.result_files import read_voc
from pipeline.errors import PipelineError
from pipeline.evaluation.voc_ap import (
    FALSE_POSITIVE,
    IGNORED,
    TRUE_POSITIVE,
    average_precision,
    evaluate,
    match_detections,
)

TENS = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]


def detections_of(rows, images=("a",), classes=("cat",)):
    """Detections from rows of image, class, score, box."""
    columns = list(zip(*rows, strict=True)) or [[], [], [], np.zeros((0, 4))]
    return Detections(images, classes, *columns)


@pytest.fixture
def voc_split(shared, oracle, make_image):
    """The oracle's folder as records, read here rather than by the product's own reader."""
    folder, classes = shared / "oracles" / "voc", tuple(oracle("voc_eval.npz")["classes"].tolist())
    images = []
    for image_id in (folder / "ImageSets/Main/test.txt").read_text().split():
        objects = ET.parse(folder / "Annotations" / f"{image_id}.xml").findall("object")
        boxes = [[int(node.find("bndbox").find(side).text) for side in ("xmin", "ymin", "xmax", "ymax")] for node in objects]
        images.append(make_image(
            image_id, np.array(boxes).reshape(-1, 4) - [1, 1, 0, 0], [classes.index(node.find("name").text) for node in objects],
            [node.find("difficult").text == "1" for node in objects]))
    detections = read_voc(folder / "results", "test", [image.id for image in images], classes)
    return detections, images, classes


class TestReferenceResults:
    def test_every_number_of_the_release(self, voc_split, oracle):
        expected, result = oracle("voc_eval.npz"), evaluate(*voc_split)
        for name in ("num_positives", "num_detections"):
            np.testing.assert_array_equal([getattr(of_class, name) for of_class in result.classes], expected[name])
        for name in ("ap_07", "ap_area"):
            np.testing.assert_allclose([getattr(of_class, name) for of_class in result.classes], expected[name], atol=1e-9)
        for name in ("recall", "precision"):
            curve = np.concatenate([getattr(of_class, name) for of_class in result.classes])
            np.testing.assert_allclose(curve, expected[name], atol=1e-9)
        assert result.mean_ap_07 == pytest.approx(float(expected["map_07"]), abs=1e-9)
        assert result.mean_ap_area == pytest.approx(float(expected["map_area"]), abs=1e-9)
        assert result.without_objects == ()

    def test_at_another_threshold(self, voc_split, oracle):
        result = evaluate(*voc_split, iou_threshold=0.7)
        areas = [of_class.ap_area for of_class in result.classes]
        np.testing.assert_allclose(areas, oracle("voc_eval.npz")["ap_area_iou70"], atol=1e-9)


class TestAveragePrecision:
    def test_by_hand(self):
        recall, precision = np.array([0.25, 0.25, 0.5, 0.75]), np.array([1, 0.5, 2 / 3, 0.75])
        assert average_precision(recall, precision, "area") == pytest.approx(0.25 * 1 + 0.5 * 0.75)
        assert average_precision(recall, precision, "07") == pytest.approx((3 * 1 + 5 * 0.75) / 11)

    def test_no_detection_and_all_found(self):
        for metric in ("07", "area"):
            assert average_precision(np.zeros(0), np.zeros(0), metric) == 0
            assert average_precision(np.array([0.0]), np.array([0.0]), metric) == 0
            assert average_precision(np.array([1.0]), np.array([1.0]), metric) == pytest.approx(1)

    def test_a_recall_of_three_tenths_misses_its_point(self):
        assert average_precision(np.array([0.3]), np.array([1.0]), "07") == pytest.approx(3 / 11)
        assert average_precision(np.array([0.4]), np.array([1.0]), "07") == pytest.approx(5 / 11)

    def test_many_curves_at_once_as_one_by_one(self):
        generator = np.random.default_rng(0)
        recall, precision = np.sort(generator.random((4, 5, 9))), generator.random((4, 5, 9))
        for metric in ("07", "area"):
            together = average_precision(recall, precision, metric)
            assert together.shape == (4, 5)
            for index in np.ndindex(4, 5):
                assert together[index] == average_precision(recall[index], precision[index], metric)

    def test_unknown_metric(self):
        with pytest.raises(PipelineError, match=r"AP metric '12': expected '07' .* or 'area'"):
            average_precision(np.zeros(0), np.zeros(0), "12")


class TestMatching:
    def test_by_hand(self, make_image):
        image = make_image("a", TENS, [0, 1, 0], [False, False, True])
        detections = detections_of([
            (0, 0, 0.9, [0, 0, 10, 9]),  # object 0
            (0, 0, 0.8, TENS[0]),  # again: a better fit does not help
            (0, 0, 0.7, TENS[1]),  # an object of the other class
            (0, 0, 0.6, TENS[2]), (0, 0, 0.5, TENS[2]),  # a difficult object, twice
            (0, 1, 0.4, [20, 0, 30, 5]),  # IoU of exactly one half
        ], classes=("cat", "dog"))
        matches = match_detections(detections, [image], ("cat", "dog"))
        assert matches.outcome.tolist() == [TRUE_POSITIVE, FALSE_POSITIVE, FALSE_POSITIVE, IGNORED, IGNORED, FALSE_POSITIVE]
        assert matches.object_index.tolist() == [0, 0, -1, 2, 2, -1]
        np.testing.assert_allclose(matches.overlap, [0.9, 1, 0, 1, 1, 0.5])
        assert matches.num_positives.tolist() == [[1, 1]]
        lower = match_detections(detections, [image], ("cat", "dog"), iou_threshold=0.49)
        assert (lower.outcome[-1], lower.object_index[-1]) == (TRUE_POSITIVE, 1)

    def test_no_second_choice(self, make_image):
        image = make_image("a", [[0, 0, 10, 10], [0, 1, 10, 11]], [0, 0])
        rows = [(0, 0, score, [0, 0, 10, 10]) for score in (0.9, 0.8)]
        assert match_detections(detections_of(rows), [image], ("cat",)).outcome.tolist() == [TRUE_POSITIVE, FALSE_POSITIVE]

    @pytest.mark.parametrize("score_levels", [None, 3])
    def test_as_one_detection_at_a_time(self, make_split, score_levels):
        images, classes, detections = make_split(np.random.default_rng(4), 12, 3, 15, score_levels)
        matches = match_detections(detections, images, classes, 0.6)
        matched = set()
        for index in sorted(range(len(detections)), key=lambda index: -detections.score[index]):
            image = images[detections.image_index[index]]
            best, outcome = (0, -1), FALSE_POSITIVE
            for row, (box, label) in enumerate(zip(image.boxes, image.labels, strict=True)):
                overlap = iou(box[None], detections.boxes[[index]])[0, 0]
                if label == detections.class_index[index] and overlap > best[0]:
                    best = (overlap, row)
            if best[0] > 0.6 and image.difficult[best[1]]:
                outcome = IGNORED
            elif best[0] > 0.6 and (image.id, best[1]) not in matched:
                matched.add((image.id, best[1]))
                outcome = TRUE_POSITIVE
            assert matches.outcome[index] == outcome
            assert matches.overlap[index] == best[0]
            assert matches.object_index[index] == (best[1] if best[0] > 0.6 else -1)
        assert set(matches.outcome.tolist()) == {TRUE_POSITIVE, FALSE_POSITIVE, IGNORED}

    def test_ranking_is_by_score_then_image_then_order(self, make_image):
        images = [make_image("a"), make_image("b")]
        rows = [(1, 0, 0.5, TENS[0]), (0, 1, 0.7, TENS[0]), (0, 0, 0.5, TENS[1]), (0, 0, 0.5, TENS[2]), (1, 0, 0.9, TENS[0])]
        matches = match_detections(detections_of(rows, ("a", "b"), ("cat", "dog")), images, ("cat", "dog"))
        ranking = matches.ranking(0)
        assert matches.detections.image_index[ranking].tolist() == [1, 0, 0, 1]
        assert matches.detections.boxes[ranking, 0].tolist() == [0, 20, 40, 0]

    def test_detections_of_another_split(self, make_image):
        images = [make_image("a"), make_image("b")]
        with pytest.raises(PipelineError, match="1 images against a split of 2: number 2 is none, expected b"):
            evaluate(detections_of([]), images, ("cat",))
        with pytest.raises(PipelineError, match="2 classes against a split of 2: number 1 is cat, expected dog"):
            evaluate(detections_of([], ("a", "b"), ("cat", "dog")), images, ("dog", "cat"))


class TestEvaluate:
    def test_class_without_objects_and_class_without_detections(self, make_image):
        images = [make_image("a", TENS[:2], [0, 2], [False, True]), make_image("b", TENS[:1], [1])]
        classes = ("cat", "dog", "hen", "owl")
        rows = [(0, 0, 0.9, TENS[0]), (0, 2, 0.9, TENS[1]), (0, 3, 0.9, TENS[1])]
        result = evaluate(detections_of(rows, ("a", "b"), classes), images, classes)
        assert [of_class.ap_area for of_class in result.classes[:2]] == [1, 0]
        assert np.isnan([of_class.ap_07 for of_class in result.classes[2:]]).all()
        assert result.without_objects == ("hen", "owl")
        assert result.mean_ap_area == 0.5
        assert result.mean_ap_07 == pytest.approx(0.5)

    def test_nothing_defined(self, make_image):
        result = evaluate(detections_of([]), [make_image("a")], ("cat",))
        assert np.isnan(result.mean_ap_07)
        assert np.isnan(result.mean_ap_area)

    def test_json_has_null_for_what_is_undefined_and_curves_that_give_ap(self, make_split):
        images, classes, detections = make_split(np.random.default_rng(5), 8, 2, 10)
        detections = Detections(detections.image_ids, (*classes, "none"), detections.image_index, detections.class_index,
                                detections.score, detections.boxes)
        result = evaluate(detections, images, (*classes, "none"))
        data = json.loads(json.dumps(result.to_json(), allow_nan=False))
        assert data["classes"]["none"] == {
            "ap_07": None, "ap_area": None, "num_positives": 0, "num_detections": 0, "recall": [], "precision": []}
        assert data["map_area"] == result.mean_ap_area
        assert data["map_07"] == result.mean_ap_07
        assert data["without_objects"] == ["none"]
        for of_class in result.classes[:2]:
            curve = np.array(data["classes"][of_class.name]["recall"]), np.array(data["classes"][of_class.name]["precision"])
            assert len(curve[0]) < of_class.num_detections
            assert average_precision(*curve, "07") == pytest.approx(of_class.ap_07, abs=1e-12)
            assert average_precision(*curve, "area") == pytest.approx(of_class.ap_area, abs=1e-12)
