"""Detections: order and storage."""

import contextlib
import zipfile

import numpy as np
import pytest

from pipeline.detection.candidates import load_candidates
from pipeline.detection.detections import Detections, join_detections
from pipeline.errors import PipelineError
from tests.pipeline.detection.samples import one_detection, random_detections


def assert_same(first, second):
    assert (first.image_ids, first.classes) == (second.image_ids, second.classes)
    for name in ("image_index", "class_index", "score", "boxes"):
        left, right = getattr(first, name), getattr(second, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


class TestDetections:
    def test_sorts_by_image_class_and_falling_score_and_keeps_ties_in_order(self):
        detections = Detections(
            ("a", "b"), ("cat", "dog"), image_index=[1, 0, 0, 0, 0], class_index=[0, 1, 0, 0, 0],
            score=[9, 8, 0.5, 0.75, 0.5], boxes=np.arange(5)[:, None] + [0, 0, 1, 1])
        assert detections.boxes[:, 0].tolist() == [3, 2, 4, 1, 0]
        assert detections.image_index.tolist() == [0, 0, 0, 0, 1]
        assert detections.class_index.tolist() == [0, 0, 0, 1, 0]
        assert detections.score.tolist() == [0.75, 0.5, 0.5, 8, 9]
        assert [array.dtype for array in (detections.image_index, detections.class_index, detections.score, detections.boxes)] \
            == [np.int32, np.int32, np.float32, np.float32]

    @pytest.mark.parametrize(("changes", "message"), [
        ({"score": [0.5, 0.4]}, "lengths differ .* 2 scores"),
        ({"image_index": [2]}, "image index 2 to 2, but there are 2 names"),
        ({"class_index": [-1]}, "class index -1 to -1"),
        ({"classes": ("cat", "cat")}, "occurs twice among the 2 class names"),
        ({"score": [np.nan]}, "image b, class cat: score nan"),
        ({"boxes": [[1, 2, np.inf, 4]]}, "image b, class cat: .* not finite"),
    ])
    def test_refuses_what_is_no_detection(self, changes, message):
        with pytest.raises(PipelineError, match=message):
            one_detection(**changes)

    @pytest.mark.parametrize("detections", [
        random_detections(), one_detection(), random_detections(count=0), random_detections(count=0, images=0, classes=0)])
    def test_load_returns_what_was_saved(self, detections, tmp_path):
        detections.save(tmp_path / "detections.npz")
        assert_same(Detections.load(tmp_path / "detections.npz"), detections)

    def test_equal_detections_give_equal_bytes_whenever_saved(self, tmp_path):
        for name in ("first", "second"):
            random_detections().save(tmp_path / name)
        assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
        with zipfile.ZipFile(tmp_path / "first") as archive:
            assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}

    def test_a_foreign_or_cut_file_is_named(self, tmp_path):
        path = tmp_path / "detections.npz"
        random_detections().save(path)
        whole = path.read_bytes()
        for content in b"", b"not an archive", whole[:-50], whole[:100]:
            path.write_bytes(content)
            with pytest.raises(PipelineError, match=r"detections\.npz: not a whole file of image_ids"):
                Detections.load(path)
        np.save(tmp_path / "single.npy", np.zeros(3))
        with pytest.raises(PipelineError, match=r"single\.npy"):
            Detections.load(tmp_path / "single.npy")


ODD = [
    np.array(3), np.array("x"), np.zeros((2, 2)), np.array([b"a", b"b"]), np.array([0, 10**9]), np.array([-1, 0]),
    np.array([0.5, np.nan]), np.zeros(2, complex), np.zeros(2, "M8[s]"), np.zeros(2, [("a", "f4")]), np.array([0, 2], np.uint64),
    np.zeros(3), np.array(["a", "a"]), np.zeros((0, 4)),
]
ONE = {"class_index": np.array([0, 0]), "score": np.array([0.5, 0.25]), "boxes": np.zeros((2, 4))}
SOUND = {
    Detections.load: {**ONE, "image_ids": np.array(["a", "b"]), "classes": np.array(["c"]), "image_index": np.array([0, 1])},
    load_candidates: {**ONE, "counts": np.array([1, 1]), "survives": np.array([True, False])},
}


@pytest.mark.parametrize("load", SOUND)
@pytest.mark.filterwarnings("error")
def test_arrays_of_other_kinds_are_refused(load, tmp_path):
    path = tmp_path / "a.npz"
    for name, right in SOUND[load].items():
        for value in ODD:
            np.savez(path, **{**SOUND[load], name: value})
            alike = value.dtype.kind == right.dtype.kind and value.shape == right.shape
            with contextlib.suppress(PipelineError) if alike else pytest.raises(PipelineError, match=r"a\.npz: "):
                load(path)
    np.savez(path, **SOUND[load])
    load(path)


def test_joined_detections_are_those_of_all_images():
    whole = random_detections()
    parts = []
    for first, end in (0, 2), (2, 2), (2, 5):
        rows = (whole.image_index >= first) & (whole.image_index < end)
        columns = whole.class_index[rows], whole.score[rows], whole.boxes[rows]
        parts.append(Detections(whole.image_ids[first:end], whole.classes, whole.image_index[rows] - first, *columns))
    assert_same(join_detections(parts), whole)
    assert_same(join_detections(parts[1:2]), parts[1])
