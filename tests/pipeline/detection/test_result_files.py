"""VOC's and COCO's result files."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.datasets.records import CocoNames, Split
from pipeline.datasets.voc_names import voc_file_name, voc_id
from pipeline.detection.detections import Detections
from pipeline.detection.result_files import coco_image_ids, names_in_coco, read_voc, write_coco, write_voc
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

    def test_names_that_the_format_cannot_hold_are_escaped(self, tmp_path):
        ids = ("IMG 0001 (2)", "100%", "a%20b", "a b", "sub/c", "d\u3000e")
        classes = ("Cabinet/shelf", "../cat", "100% dog", "a\\b", "naïve: <\"x\">?*", "nul\0", "tab\tend")
        detections = replace(random_detections(200, len(ids), len(classes)), image_ids=ids, classes=classes)
        write_voc(tmp_path, "test", detections)
        names = {path.name for path in tmp_path.iterdir()}
        assert "comp4_det_test_Cabinet%2Fshelf.txt" in names
        assert "comp4_det_test_..%2Fcat.txt" in names
        assert len(names) == len(classes)
        read = read_voc(tmp_path, "test", ids, classes)
        np.testing.assert_array_equal(read.image_index, detections.image_index)
        np.testing.assert_array_equal(read.class_index, detections.class_index)
        np.testing.assert_array_equal(read.score, detections.score)

    @pytest.mark.parametrize(("name", "escaped"), [
        ("a b.png", "a%20b.png"), ("a%20b", "a%2520b"), ("a\tb", "a%09b"), ("a\u00a0b", "a%C2%A0b"), ("a-b/c", "a-b/c"),
    ])
    def test_escaped_ids(self, name, escaped):
        assert voc_id(name) == escaped

    @pytest.mark.parametrize(("name", "escaped"), [
        ("cat", "cat"), ("traffic light", "traffic light"), ("größe", "größe"), ("a/b", "a%2Fb"), ("a%2Fb", "a%252Fb"),
        ("a\\b", "a%5Cb"), ("a\nb", "a%0Ab"), ("50%", "50%25"),
    ])
    def test_escaped_classes(self, name, escaped):
        assert voc_file_name("val", name) == f"comp4_det_val_{escaped}.txt"

    def test_ids_of_a_release_are_not_escaped(self, tmp_path):
        (tmp_path / "comp4_det_test_cat.txt").write_text("50% 0.5 1 1 2 2\na%20b 0.5 1 1 2 2\n")
        assert read_voc(tmp_path, "test", ("50%", "a%20b"), ("cat",)).image_index.tolist() == [0, 1]


def write(path, detections):
    ids = detections.image_ids
    write_coco(path, detections, CocoNames(tuple(coco_image_ids(ids)), ids, tuple(range(1, len(detections.classes) + 1))))


class TestCocoFile:
    def test_results_and_names_by_hand(self, tmp_path):
        detections = one_detection(image_ids=("000007", "000012"), classes=("cat", "dog"), score=[0.1], class_index=[1],
                                   boxes=[[0.5, 2, 10, 20]])
        write_coco(tmp_path / "results.json", detections, CocoNames((7, "twelve"), ("a.jpg", "b/c.jpg"), (90, "D")))
        assert json.loads((tmp_path / "results.json").read_text()) == [
            {"image_id": "twelve", "category_id": "D", "bbox": [0.5, 2, 9.5, 18], "score": 0.100000001}]
        assert json.loads((tmp_path / "results.names.json").read_text()) == {
            "images": [{"id": 7, "file_name": "a.jpg"}, {"id": "twelve", "file_name": "b/c.jpg"}],
            "categories": [{"id": 90, "name": "cat"}, {"id": "D", "name": "dog"}]}

    def test_names_of_a_data_set_without_a_coco_file(self, make_record):
        paths = {"000007": "JPEGImages/000007.png", "g": "JPEGImages/g.jpg", "sub/a": "images/sub/a.JPG", "x": "other.jpg"}
        images = [replace(make_record(id), path=path) for id, path in paths.items()]
        names = names_in_coco(Split("test", ("cat", "dog"), images))
        assert names == CocoNames((1, 2, 3, 4), ("000007.png", "g.jpg", "sub/a.JPG", "other.jpg"), (1, 2))
        assert names_in_coco(Split("test", ("cat",), images[:1])).image_ids == (7,)

    def test_many_and_no_results_are_json(self, tmp_path):
        for count in (0, 2, 50):
            write(tmp_path / "results.json", random_detections(count=count))
            assert len(json.loads((tmp_path / "results.json").read_text())) == count

    def test_scores_keep_their_ranking(self, tmp_path):
        detections = random_detections(count=50)
        write(tmp_path / "results.json", detections)
        scores = [result["score"] for result in json.loads((tmp_path / "results.json").read_text())]
        np.testing.assert_array_equal(np.float32(scores), detections.score)

    @pytest.mark.parametrize(("names", "ids"), [
        (("000007", "12"), [7, 12]), (("7", "photo"), [1, 2]), (("07", "7"), [1, 2]), (("-3", "4"), [1, 2]), (("²", "4"), [1, 2]),
        ((), [])])
    def test_image_ids_are_numbers(self, names, ids):
        assert coco_image_ids(names) == ids
