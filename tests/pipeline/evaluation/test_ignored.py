"""Regions to ignore in every evaluation: by hand, and COCO's against pycocotools on the user's own file."""

import contextlib
import hashlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.datasets.formats import read_split, split_files
from pipeline.datasets.records import NO_CLASS
from pipeline.detection.detections import Detections
from pipeline.evaluation.coco_ap import METRICS, evaluate_coco
from pipeline.evaluation.errors import KINDS, NO_ERROR, analyse_errors, false_positive_kinds
from pipeline.evaluation.voc_ap import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, match_detections
from pipeline.report.gallery import FALSE_ALARM, HIT, marks_of
from tests.tiers import examples

CAT, CROWD, FAR = [0, 0, 40, 40], [100, 0, 200, 100], [500, 500, 540, 540]
CLASSES = ("cat", "dog")


@pytest.fixture
def image(make_image):
    """A cat, a crowd of cats, and a region to ignore of no class."""
    record = make_image("a", [CAT, CROWD, FAR], [0, 0, NO_CLASS])
    return replace(record, ignored=np.array([False, True, True]))


def detections_of(rows):
    """Of image a: rows of class, score and box."""
    columns = zip(*rows, strict=True)
    return Detections(("a",), CLASSES, [0] * len(rows), *columns)


class TestVoc:
    """As difficult objects: by IoU with the region, of its own class."""

    ROWS = ((0, 0.9, CROWD), (0, 0.8, CROWD), (0, 0.7, [110, 10, 120, 20]), (0, 0.6, CAT), (0, 0.5, FAR), (1, 0.9, CROWD),
            (1, 0.8, FAR))

    def test_outcomes_by_hand(self, image):
        """Twice on the crowd; a small box in it is a false alarm, as on a difficult object; a crowd of cats hides no dog."""
        matches = match_detections(detections_of(self.ROWS), [image], CLASSES)
        assert matches.num_positives.tolist() == [[1, 0]]
        expected = [IGNORED, IGNORED, FALSE_POSITIVE, TRUE_POSITIVE, *[FALSE_POSITIVE] * 3]
        assert matches.outcome.tolist() == expected

    def test_a_region_of_no_class_is_none_of_the_image_before(self, image, make_image):
        """The label -1 of image a must not be taken for the last class of the image before it."""
        first = make_image("0", [FAR], [1])
        detections = Detections(("0", "a"), CLASSES, [0], [1], [0.9], [FAR])
        matches = match_detections(detections, [first, image], CLASSES)
        assert (matches.outcome.tolist(), matches.object_index.tolist()) == ([TRUE_POSITIVE], [0])
        assert matches.num_positives.tolist() == [[0, 1], [1, 0]]

    def test_as_if_difficult(self, image):
        known = image.select(image.labels != NO_CLASS)
        difficult = replace(known, ignored=np.zeros(2, bool), difficult=known.ignored)
        matches, expected = (match_detections(detections_of(self.ROWS), [record], CLASSES) for record in (image, difficult))
        np.testing.assert_array_equal(matches.outcome, expected.outcome)
        np.testing.assert_array_equal(matches.num_positives, expected.num_positives)

    def test_errors_count_no_region(self, image):
        matches = match_detections(detections_of(self.ROWS), [image], CLASSES)
        kinds = [KINDS[kind] if kind != NO_ERROR else None for kind in false_positive_kinds(matches, [image], [])]
        # The small box overlaps the crowd by 0.01. For dogs the crowd is another object; a region of no class is background.
        assert kinds == [None, None, "background", None, "background", "other", "background"]
        errors = analyse_errors(matches, [image], []).classes
        assert [errors[name].num_objects for name in CLASSES] == [1, 0]
        assert sum(errors["cat"].objects.values()) == sum(errors["cat"].found.values()) == 1

    def test_pictures_show_neither_a_miss_nor_a_find_there(self, image):
        matches = match_detections(detections_of(self.ROWS), [image], CLASSES)
        marks = marks_of(matches, [image], 0, np.array([0.55, 0.85]))
        assert [(mark.kind, mark.name) for mark in marks] == [(FALSE_ALARM, "cat"), (FALSE_ALARM, "dog"), (HIT, "cat")]


class TestCoco:
    def test_several_detections_by_their_own_area(self, image):
        """Ten small boxes in the crowd are neither true nor false; one that has 40 % of its area there is false."""
        inside = [(0, 0.9 - step / 100, [110 + 5 * step, 10, 120 + 5 * step, 20]) for step in range(10)]
        right, wrong = (0, 0.5, CAT), (0, 0.7, [90, 110, 140, 160])
        across = (0, 0.7, [70, 0, 120, 50])  # 40 % in the crowd
        assert evaluate_coco(detections_of([*inside, right]), [image], CLASSES).metrics["ap"] == pytest.approx(1)
        for false in (wrong, across):
            result = evaluate_coco(detections_of([*inside, false, right]), [image], CLASSES)
            assert result.metrics["ap"] == pytest.approx(0.5)

    def test_a_class_with_crowds_alone_is_undefined(self, image):
        result = evaluate_coco(detections_of([(1, 0.5, CAT)]), [image], CLASSES)
        assert np.isnan(result.classes["dog"])


def own_table(folder, document, rows):
    """Our metrics: the user's file read as any split, detections as rows of image, category, score and box."""
    (folder / "annotations").mkdir(exist_ok=True)
    path = folder / "annotations/instances_val.json"
    path.write_text(json.dumps(document))
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in split_files(folder, "val")}
    split = read_split(folder, "val", ("cat", "dog"), digests)
    ids, label = tuple(image.id for image in split.images), {30: 0, 10: 1}
    columns = [[ids.index(str(image)), label[category], score, box] for image, category, score, box in rows]
    return evaluate_coco(Detections(ids, split.classes, *(list(column) for column in zip(*columns))), split.images, split.classes)


def pycocotools_table(folder, rows):
    """The metrics that the user gets from the same file."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "annotations/instances_val.json"))
        results = truth.loadRes([
            {"image_id": image, "category_id": category, "score": score, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for image, category, score, (x1, y1, x2, y2) in rows
        ])
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    (folder / "val").mkdir()
    for number in (4, 7, 9):
        Image.fromarray(np.zeros((96, 128, 3), np.uint8)).save(folder / "val" / f"{number}.png")
    return folder


corner, side = st.integers(0, 60), st.integers(3, 36)
regions = st.tuples(corner, corner, side, side)
objects = st.tuples(st.sampled_from([4, 7, 9]), st.sampled_from([30, 10]), regions, st.sampled_from([0, 0, 1]))
found_boxes = st.tuples(st.sampled_from([4, 7, 9]), st.sampled_from([30, 10]), regions, st.none() | st.integers(0, 9))


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([(4, 30, (0, 0, 30, 30), 1), (4, 30, (5, 5, 20, 20), 0)], [(4, 30, (5, 5, 20, 20), None), (4, 30, (1, 1, 9, 9), None)])
@given(st.lists(objects, min_size=1, max_size=9), st.lists(found_boxes, min_size=1, max_size=30))
def test_pycocotools_on_the_users_file_gives_our_table(folder, annotated, detected):
    """Crowds among the objects; detections at random and near objects. The file's categories and images are in no order."""
    annotations = [
        {"id": id, "image_id": image, "category_id": category, "bbox": list(box), "area": box[2] * box[3], "iscrowd": crowd}
        for id, (image, category, box, crowd) in enumerate([(9, 30, (0, 0, 3, 3), 0), *annotated], 1)
    ]
    rows = []
    for place, (image, category, (x, y, width, height), near) in enumerate(detected):
        if near is not None:
            image, category, (x, y, width, height), _ = annotated[near % len(annotated)]
            x, y = x + near % 3, y + near % 2
        rows.append((image, category, 1 - place / 64, (x, y, x + width, y + height)))
    document = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in (9, 4, 7)], "annotations": annotations,
        "categories": [{"id": 30, "name": "cat"}, {"id": 10, "name": "dog"}],
    }
    ours = own_table(folder, document, rows)
    theirs = pycocotools_table(folder, rows)
    expected = [np.nan if value == -1 else value for value in theirs]
    np.testing.assert_allclose([ours.metrics[name] for name in METRICS], expected, rtol=0, atol=1e-12)
