"""Each limit that leaves something out is told of in one line, with its setting and a count, and is in the figures."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.datasets.records import ImageRecord, Split
from pipeline.detection.candidates import Candidates, save_candidates, top_scoring
from pipeline.detection.detections import Detections, LeftOut
from pipeline.rcnn import box_regression, svm
from tasks import rcnn as linear_models
from tasks.data.sharded import sum_figures
from tasks.detection import CANDIDATES, DetectSplit
from tasks.evaluation import evaluate
from tasks.faster_rcnn.four_steps import TrainRPN
from tasks.left_out import candidate_figures, left_out_figures, note_limit_of_split, warn_of_limits
from tasks.networks.map_training import warn_of_unused
from tasks.photographs.detect import DetectImages
from tasks.proposals.reach import network_advice, reach_figures, warn_of_crowds
from tasks.rcnn import TrainBoxRegressors, TrainSVMs


@pytest.fixture
def lines(caplog):
    """The messages logged since the last call."""

    def take():
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return messages

    return take


def record(objects, id="a", side=9, size=400):
    boxes = np.float32([[10 * number, 0, 10 * number + side, side] for number in range(objects)]).reshape(-1, 4)
    return ImageRecord(id, f"{id}.png", "", size, size, boxes, np.zeros(objects, np.int64), np.zeros(objects, bool))


class TestLimits:
    def test_a_line_for_each_that_leaves_something_out(self, lines):
        warn_of_limits("Stage/abc", {"max_per_image": (100, 5), "mean_per_image": (0, 0), "max_proposals": (60, 7)})
        assert lines() == [
            "Stage/abc: --max-per-image 100 leaves out 5 candidates, those with the lowest scores, before suppression; "
            "raise it to keep more, 0 keeps all",
            "Stage/abc: --max-proposals 60 leaves out 7 proposals, those of the lowest priority; raise it to keep more",
        ]

    def test_figures_are_sums_without_zeros(self):
        images = [SimpleNamespace(left_out=LeftOut(0, 3, 1)), SimpleNamespace(left_out=LeftOut(0, 2, 0))]
        assert left_out_figures(images) == {"left_out_candidates": 5, "left_out_detections": 1}
        assert left_out_figures([]) == {}

    def test_a_limit_over_the_split_is_not_for_single_images(self, lines):
        note_limit_of_split("ExportDetector/abc", 0)
        assert not lines()
        note_limit_of_split("ExportDetector/abc", 40)
        assert lines() == ["ExportDetector/abc: --mean-per-image 40 limits a whole split; in single images it is not applied"]


class TestDetection:
    """The whole stage, from two shards of one image each."""

    def merge(self, tmp_path, *, per_image=0, mean=0, most=0):
        generator, shards = np.random.default_rng(0), []
        corner = np.arange(30)[:, None] * [20, 0]
        boxes = np.concatenate([corner, corner + 10], axis=1)
        for number in range(2):
            folder = tmp_path / str(number)
            folder.mkdir()
            candidates = top_scoring(generator.normal(size=(30, 2)), boxes, per_image, 0.3, most)
            save_candidates(folder / CANDIDATES, [candidates])
            shards.append(SimpleNamespace(
                path=lambda name, folder=folder: folder / name, manifest={"figures": candidate_figures([candidates])}
            ))
        (tmp_path / "files").mkdir()
        stage = SimpleNamespace(
            label="Detect/abc", load_split=lambda: Split("test", ("x", "y"), (record(0, "a"), record(0, "b"))),
            max_per_image=per_image, mean_per_image=mean, max_detections=most,
        )
        merged = DetectSplit.merge_shards(stage, SimpleNamespace(files=tmp_path / "files"), shards)
        return {**sum_figures(shards), **merged}

    def test_nothing_is_told_where_nothing_is_left_out(self, tmp_path, lines):
        assert self.merge(tmp_path) == {"images": 2, "detections": 120}
        assert not lines()

    @pytest.mark.parametrize(("settings", "figure", "count", "option"), [
        ({"per_image": 20}, "left_out_candidates", 40, "--max-per-image 20"),
        ({"mean": 12}, "left_out_over_split", 72, "--mean-per-image 12"),
        ({"most": 25}, "left_out_detections", 70, "--max-detections 25"),
    ])
    def test_each_limit_is_told_of_and_counted(self, tmp_path, lines, settings, figure, count, option):
        figures = self.merge(tmp_path, **settings)
        assert figures == {"images": 2, "detections": 120 - count, figure: count}
        (line,) = lines()
        assert line.startswith(f"Detect/abc: {option} leaves out {count} ")

    @pytest.mark.parametrize("mean", [0, 40])
    def test_suppressed_candidates_are_only_kept_for_the_limit_over_the_split(self, tmp_path, mean):
        candidates = Candidates(np.int32([0, 0]), np.float32([2, 1]), np.zeros((2, 4), np.float32), np.array([True, False]))
        stage = SimpleNamespace(mean_per_image=mean)
        figures = DetectSplit.save_candidates(stage, SimpleNamespace(files=tmp_path), [candidates])
        assert figures == {"images": 1, "detections": 1}
        with np.load(tmp_path / CANDIDATES) as file:
            assert len(file["score"]) == (2 if mean else 1)


class TestPhotographs:
    def test_the_detector_s_limits_are_told_of(self, lines):
        settings = {"proposals": {"max_boxes": 40}, "settings": {"max_per_image": 0, "max_detections": 30}}
        stage = SimpleNamespace(label="DetectImages/abc", settings=lambda: settings, detector="detector")
        DetectImages._warn_of_limits(stage, {"left_out_proposals": 11, "left_out_detections": 5})
        assert [line.partition(";")[0] for line in lines()] == [
            "DetectImages/abc: --max-proposals 40 leaves out 11 proposals, those of the lowest priority",
            "DetectImages/abc: --max-detections 30 leaves out 5 detections, those with the lowest scores",
        ]
        DetectImages._warn_of_limits(stage, {})
        assert not lines()


class TestMemory:
    """Trainings for which memory does not suffice."""

    @pytest.fixture
    def build(self, monkeypatch, tmp_path):
        """build(stage, module, name, model) -> the figures of a stage whose training returns `model`."""

        def build(stage, module, name, model):
            monkeypatch.setattr(module, name, lambda *arguments: model)
            monkeypatch.setattr(linear_models, "open_features", lambda artefact: None)
            monkeypatch.setattr(linear_models, "scale_of", lambda store, seed: 1.0)
            monkeypatch.setattr(linear_models, "save_arrays", lambda workshop, name, model: None)
            monkeypatch.setattr(stage, "requires", lambda self: {})
            monkeypatch.setattr(stage, "inputs", lambda self: {"features": None})
            return stage(cache_dir=str(tmp_path)).build(None)

        return build

    @pytest.mark.parametrize("left_out", [0, 4])
    def test_examples_of_box_regressors(self, build, lines, left_out):
        model = SimpleNamespace(num_examples=np.array([10, 6]), num_left_out=np.array([left_out, 0]))
        figures = build(TrainBoxRegressors, box_regression, "train_box_regressors", model)
        assert figures["left_out"] == left_out
        texts = [line.partition(": ")[2] for line in lines()]
        assert texts == (["--box-gigabytes 1.5 holds 16 of 20 examples, drawn at random; the regressors are trained without the "
                          "other 4. Raise it to use them"] if left_out else [])

    @pytest.mark.parametrize("crowded_out", [0, 4])
    def test_negatives_of_svms(self, build, lines, crowded_out):
        counts = {"num_positives": np.array([1]), "num_negatives": np.array([2]), "num_crowded_out": np.array([crowded_out])}
        figures = build(TrainSVMs, svm, "train_svms", SimpleNamespace(**counts, events=[]))
        assert figures["crowded_out"] == crowded_out
        texts = [line.partition(": ")[2] for line in lines()]
        assert texts == (["--svm-gigabytes 2 left no room for 4 negatives, those with the lowest scores; the SVMs are trained "
                          "without them. Raise it to use them"] if crowded_out else [])


class TestCoco:
    @pytest.mark.parametrize("objects", [100, 180])
    def test_objects_beyond_those_that_count(self, monkeypatch, tmp_path, lines, objects):
        image = record(objects)
        nothing = np.zeros(objects)
        Detections(("a",), ("x",), nothing, nothing, nothing, image.boxes).save(tmp_path / "detections.npz")
        monkeypatch.setattr(evaluate, "load_split", lambda artefact: Split("test", ("x",), (image,)))
        artefact = SimpleNamespace(path=lambda name: tmp_path / name)
        stage = SimpleNamespace(
            label="Evaluate/abc", chain="rcnn", inputs=lambda: {"test": None, "detections": artefact}, iou_threshold=0.5,
            bootstrap_resamples=2, seed=0, similar_classes=(),
        )
        workshop = SimpleNamespace(write=lambda name, text: None)
        monkeypatch.setattr(evaluate, "shared_figures", lambda stage, split: {})
        figures = evaluate.Evaluate.build(stage, workshop)
        assert figures.get("beyond_coco", 0) == objects - 100
        assert figures["map"] == 1
        assert lines() == ([
            "Evaluate/abc: COCO's metrics count at most 100 detections per class and image; 1 of 1 images have more objects of a "
            "class, so that 80 objects count as missed. VOC's AP counts all"
        ] if objects > 100 else [])


class TestTrainingImages:
    def test_those_that_are_not_used(self, lines):
        warn_of_unused("TrainFastRCNN/abc", 0, 20, "no region")
        assert not lines()
        warn_of_unused("TrainFastRCNN/abc", 3, 20, "no region in them has an IoU of 0.1 or more with an object")
        assert lines() == ["TrainFastRCNN/abc: 3 of 20 training images are not used: no region in them has an IoU of 0.1 or "
                           "more with an object"]

    def test_those_without_room_for_an_anchor(self, lines):
        images = (record(1, "a", 60, 480), record(1, "b", 60, 20))
        task = TrainRPN(fast_scale=480, fast_longest_side=480, anchor_scales=(5.0, 40.0))
        small = replace(images[1], width=480)
        task.anchor_sampler(Split("train", ("x",), (images[0], small)), 0, 1)
        end = "1 of 2 training images are not used: no anchor fits into them; lower --anchor-scales to use them"
        assert any(line.endswith(end) for line in lines())


class TestReach:
    def test_figures_and_a_line_when_no_object_is_reached(self, lines):
        split = Split("train", ("x",), (record(3), record(2, "b")))
        assert reach_figures("Stage/abc", split, [image.boxes for image in split.images], network_advice) == {
            "objects": 5, "objects_reached": 5,
        }
        assert not lines()
        nowhere = [np.zeros((0, 4))] * 2
        assert reach_figures("Stage/abc", split, nowhere, network_advice) == {"objects": 5, "objects_reached": 0}
        (line,) = lines()
        assert line.startswith(
            "Stage/abc: split 'train': the proposals reach none of 5 objects (IoU 0.5 or more); the shorter sides of these "
            "objects are 9 to 9 pixels, and the network leaves out boxes with a side below 16: choose --anchor-scales"
        )

    def test_fewer_proposals_than_crowds_need(self, lines):
        split = Split("test", ("x",), (record(180), record(151, "b"), record(150, "c")))
        warn_of_crowds("Stage/abc", split, 300, "--rpn-test-proposals")
        assert lines() == ["Stage/abc: 2 of 3 images have more than 150 objects (180 at most), and the network proposes 300 "
                           "regions an image; raise --rpn-test-proposals to 720 or more"]
        warn_of_crowds("Stage/abc", split, 360, "--rpn-test-proposals")
        assert not lines()
