"""VOC's and COCO's result files."""

import json

import numpy as np
import pytest

from pipeline.detection.detections import Detections
from pipeline.detection.result_files import coco_image_ids, read_voc, write_coco, write_voc
from pipeline.errors import PipelineError
from tests.pipeline.detection.samples import one_detection, random_detections


class TestVocFiles:
    def test_lines_by_hand(self, tmp_path):
        write_voc(tmp_path, "test", one_detection(classes=("cat", "dog"), boxes=[[0, 1.5, 10, 20.25]], score=[0.1]))
        assert (tmp_path / "comp4_det_test_cat.txt").read_bytes() == b"b 0.100000001 1 2.5 10 20.25\n"
        assert (tmp_path / "comp4_det_test_dog.txt").read_bytes() == b""

    def test_reading_returns_what_was_written(self, tmp_path):
        detections = random_detections(count=300)
        write_voc(tmp_path, "test", detections)
        read = read_voc(tmp_path, "test", detections.image_ids, detections.classes)
        np.testing.assert_array_equal(read.score, detections.score)
        np.testing.assert_array_equal(read.image_index, detections.image_index)
        np.testing.assert_array_equal(read.class_index, detections.class_index)
        np.testing.assert_allclose(read.boxes, detections.boxes, atol=1e-5)

    def test_neighbouring_scores_stay_apart_and_equal_ones_equal(self, tmp_path):
        high = np.float32([1, 0.3, 1e-20, 12345.678, -0.7])
        scores = np.concatenate([high, high, np.nextafter(high, np.float32(-np.inf))])
        zeros = np.zeros(15, np.int32)
        detections = Detections(("x",), ("cat",), zeros, zeros, scores, np.zeros((15, 4)))
        write_voc(tmp_path, "test", detections)
        np.testing.assert_array_equal(read_voc(tmp_path, "test", ("x",), ("cat",)).score, detections.score)

    @pytest.mark.parametrize(("line", "message"), [
        ("c 0.5 1 1 2 2", r"cat\.txt:2: image 'c' is not in the split"),
        ("", r"cat\.txt:2: image '' is not in the split"),
        ("a 0.5 1 1 2", r"cat\.txt:2: 'a 0.5 1 1 2' is not `id score x1 y1 x2 y2`"),
        ("a 0.5 1 1 2 2 2", r"cat\.txt:2: .* correct the line"),
        ("a high 1 1 2 2", r"cat\.txt:2: .* correct the line"),
    ])
    def test_reader_names_file_and_line(self, line, message, tmp_path):
        (tmp_path / "comp4_det_test_cat.txt").write_text(f"a 0.5 1 1 2 2\n{line}\n")
        with pytest.raises(PipelineError, match=message):
            read_voc(tmp_path, "test", ("a", "b"), ("cat",))

    def test_every_class_needs_a_file(self, tmp_path):
        with pytest.raises(PipelineError, match=r"comp4_det_test_cat\.txt: cannot be read"):
            read_voc(tmp_path, "test", ("a", "b"), ("cat",))

    def test_names_that_the_format_cannot_hold(self, tmp_path):
        with pytest.raises(PipelineError, match="image id 'a b'"):
            write_voc(tmp_path, "test", one_detection(image_ids=("a b", "c")))
        with pytest.raises(PipelineError, match=r"class '\.\./cat'"):
            write_voc(tmp_path, "test", one_detection(classes=("../cat",)))
        assert list(tmp_path.iterdir()) == []


class TestCocoFile:
    def test_results_and_names_by_hand(self, tmp_path):
        write_coco(tmp_path / "results.json", one_detection(image_ids=("000007", "000012"), classes=("cat", "dog"), score=[0.1],
                                                            class_index=[1], boxes=[[0.5, 2, 10, 20]]))
        assert json.loads((tmp_path / "results.json").read_text()) == [
            {"image_id": 12, "category_id": 2, "bbox": [0.5, 2, 9.5, 18], "score": 0.100000001}]
        assert json.loads((tmp_path / "results.names.json").read_text()) == {
            "images": [{"id": 7, "file_name": "000007"}, {"id": 12, "file_name": "000012"}],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}

    def test_many_and_no_results_are_json(self, tmp_path):
        for count in (0, 2, 50):
            write_coco(tmp_path / "results.json", random_detections(count=count))
            assert len(json.loads((tmp_path / "results.json").read_text())) == count

    def test_scores_keep_their_ranking(self, tmp_path):
        detections = random_detections(count=50)
        write_coco(tmp_path / "results.json", detections)
        scores = [result["score"] for result in json.loads((tmp_path / "results.json").read_text())]
        np.testing.assert_array_equal(np.float32(scores), detections.score)

    @pytest.mark.parametrize(("names", "ids"), [
        (("000007", "12"), [7, 12]), (("7", "photo"), [1, 2]), (("07", "7"), [1, 2]), (("-3", "4"), [1, 2]), (("²", "4"), [1, 2]),
        ((), [])])
    def test_image_ids_are_numbers(self, names, ids):
        assert coco_image_ids(names) == ids
