"""Detections: order, storage, the release's selection, result files."""

import contextlib
import json
import zipfile

import numpy as np
import pytest

from pipeline.boxes import nms
from pipeline.detection.detections import (
    Candidates,
    Detections,
    coco_image_ids,
    join_detections,
    load_candidates,
    read_voc,
    save_candidates,
    select_detections,
    split_threshold,
    top_scoring,
    write_coco,
    write_voc,
)
from pipeline.errors import PipelineError


def random_boxes(generator, *shape, size=100):
    corner = generator.uniform(0, size / 2, (*shape, 2))
    return np.concatenate([corner, corner + generator.uniform(1, size / 2, (*shape, 2))], axis=-1).astype(np.float32)


def random_detections(count=60, images=5, classes=3, seed=0):
    generator = np.random.default_rng(seed)
    return Detections(
        tuple(f"{number:06}" for number in range(images)), tuple(f"class {number}" for number in range(classes)),
        generator.integers(images, size=count), generator.integers(classes, size=count),
        generator.normal(size=count), random_boxes(generator, count))


def one_detection(**changes):
    values = {"image_ids": ("a", "b"), "classes": ("cat",), "image_index": [1], "class_index": [0], "score": [0.5],
              "boxes": [[1, 2, 3, 4]]}
    return Detections(**{**values, **changes})


def assert_same(first, second):
    assert (first.image_ids, first.classes) == (second.image_ids, second.classes)
    for name in ("image_index", "class_index", "score", "boxes"):
        one, other = getattr(first, name), getattr(second, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


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


class TestTopScoring:
    def test_by_hand(self):
        scores = np.array([[0.1, 5], [0.9, 4], [0.5, -np.inf], [0.5, 3]])
        boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [50, 0, 60, 10], [0, 0, 10, 5]])
        found = top_scoring(scores, boxes, max_per_image=3, nms_threshold=0.3)
        assert found.class_index.tolist() == [0, 0, 0, 1, 1, 1]
        np.testing.assert_array_equal(found.score, np.float32([0.9, 0.5, 0.5, 5, 4, 3]))
        assert found.boxes[:, [0, 3]].tolist() == [[0, 9], [50, 10], [0, 5], [0, 10], [0, 9], [0, 5]]
        assert found.survives.tolist() == [True, True, False, True, False, False]

    def test_suppresses_each_class_among_its_own_boxes(self):
        generator = np.random.default_rng(1)
        scores, boxes = generator.normal(size=(50, 4)), random_boxes(generator, 50, 4)
        found = top_scoring(scores, boxes, max_per_image=20)
        assert len(found.score) == 80
        for label in range(4):
            best = np.argsort(-scores[:, label].astype(np.float32), kind="stable")[:20]
            of_class = found.class_index == label
            np.testing.assert_array_equal(found.boxes[of_class], boxes[best, label])
            kept = np.flatnonzero(found.survives[of_class])
            np.testing.assert_array_equal(kept, nms(boxes[best, label], -np.arange(20), 0.3))

    def test_a_suppressed_candidate_still_takes_a_place(self):
        boxes = np.tile(np.float32([[0, 0, 10, 10]]), (3, 1))
        boxes[2] += 50
        found = top_scoring(np.array([[3.0], [2.0], [1.0]]), boxes, max_per_image=2)
        assert found.survives.tolist() == [True, False]

    def test_no_regions(self):
        found = top_scoring(np.zeros((0, 3)), np.zeros((0, 4)))
        assert [len(getattr(found, name)) for name in ("class_index", "score", "boxes", "survives")] == [0, 0, 0, 0]
        assert found.boxes.shape == (0, 4)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_refuses_scores_that_cannot_be_ranked(self, value):
        with pytest.raises(PipelineError, match=f"region 1, class 0: score {value}"):
            top_scoring(np.array([[0.0], [value]]), np.zeros((2, 4)))


def rcnn_test(scores_of_images, max_per_image, max_per_set):
    """The running threshold of rcnn_test.m for one class: indices kept in each image, before suppression."""
    threshold, pool, kept = -np.inf, [], []
    for scores in scores_of_images:
        above = [index for index in range(len(scores)) if scores[index] > threshold]
        kept.append(sorted(above, key=lambda index: -scores[index])[:max_per_image])
        pool = sorted(pool + [scores[index] for index in kept[-1]], reverse=True)
        if len(pool) > max_per_set:
            pool = pool[:max_per_set]
            threshold = pool[-1]
    return [[index for index in indices if scores[index] >= threshold]
            for scores, indices in zip(scores_of_images, kept, strict=True)]


class TestSelection:
    def test_split_threshold_by_hand(self):
        scores = np.float32([5, 1, 4, 2, 3])
        assert split_threshold(scores, num_images=2, per_image=2) == 2
        assert split_threshold(scores, num_images=1, per_image=2) == 4
        assert split_threshold(scores, num_images=5, per_image=1) == -np.inf
        assert split_threshold(np.zeros(0, np.float32), 3) == -np.inf
        assert split_threshold(np.arange(41), num_images=1) == 1

    def test_selects_what_the_release_selects(self):
        generator = np.random.default_rng(2)
        sizes = [30, 0, 1, 60, 25, 40]
        scores = [generator.normal(generator.normal(), 1, (size, 2)).astype(np.float32) for size in sizes]
        boxes = [random_boxes(generator, size) for size in sizes]
        candidates = [top_scoring(score, box, max_per_image=20) for score, box in zip(scores, boxes, strict=True)]
        found = select_detections(candidates, "abcdef", ("cat", "dog"), per_image=7)
        expected = {}
        for label in range(2):
            kept = rcnn_test([score[:, label] for score in scores], 20, 7 * len(sizes))
            assert sum(map(len, kept)) == 42
            for image, indices in enumerate(kept):
                left = nms(boxes[image][indices], scores[image][indices, label], 0.3)
                expected[image, label] = [scores[image][indices[index], label] for index in left]
        for (image, label), values in expected.items():
            of_group = (found.image_index == image) & (found.class_index == label)
            np.testing.assert_array_equal(found.score[of_group], np.float32(values))

    def test_each_class_has_its_own_threshold_and_ties_stay(self):
        candidates = [Candidates(np.int32([0, 0, 1, 1]), np.float32([9, 8, 0.2, 0.1]), np.zeros((4, 4), np.float32),
                                 np.ones(4, bool)) for _ in range(2)]
        found = select_detections(candidates, ("x", "y"), ("cat", "dog"), per_image=1)
        assert found.score.tolist() == np.float32([9, 0.2, 9, 0.2]).tolist()
        everything_ties = [Candidates(np.int32([0, 0]), np.float32([1, 1]), np.zeros((2, 4), np.float32), np.ones(2, bool))]
        assert len(select_detections(everything_ties, ("x",), ("cat",), per_image=1)) == 2

    def test_needs_candidates_of_every_image(self):
        with pytest.raises(PipelineError, match="candidates of 0 images for a split of 1"):
            select_detections([], ("x",), ("cat",))
        with pytest.raises(PipelineError, match="candidates of 0 images for a split of 0"):
            select_detections([], (), ("cat",))

    def test_candidates_of_a_shard_come_back_from_disk(self, tmp_path):
        generator = np.random.default_rng(3)
        for sizes in ([4], [3, 0, 5, 0], [0]):
            candidates = [top_scoring(generator.normal(size=(size, 2)), random_boxes(generator, size)) for size in sizes]
            save_candidates(tmp_path / "shard.npz", candidates)
            loaded = load_candidates(tmp_path / "shard.npz")
            assert len(loaded) == len(candidates)
            for one, other in zip(loaded, candidates, strict=True):
                for name in ("class_index", "score", "boxes", "survives"):
                    assert getattr(one, name).dtype == getattr(other, name).dtype
                    np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        with pytest.raises(PipelineError, match=r"absent\.npz"):
            load_candidates(tmp_path / "absent.npz")


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
