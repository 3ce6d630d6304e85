"""Detections of one image with models made by hand; the way over the store and the way from pixels agree."""

import numpy as np
import pytest
import torch

from pipeline.detection.candidates import Limits, top_scoring
from pipeline.feature_store import FeatureStore, FeatureWriter
from pipeline.networks.backbones import make_backbone
from pipeline.networks.compute import for_inference
from pipeline.rcnn.box_regression import BoxRegressors
from pipeline.rcnn.detect import LinearModels, RCNNDetector, detect_in_store, detect_regions
from pipeline.rcnn.features import Extraction, join_regions, layer_from_pool5, region_features, write_features
from pipeline.rcnn.svm import EVENT, LinearSVMs

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
HEIGHT, WIDTH = 60, 80


def make_svms(W, B, scale=1.0):
    W, B = np.asarray(W, np.float32), np.asarray(B, np.float32)
    nothing = np.zeros(len(B), np.int64)
    classes = tuple(f"class {label}" for label in range(len(B)))
    return LinearSVMs(classes, W, B, scale, nothing, nothing, nothing, np.zeros(0, EVENT), np.zeros((0, 3), np.int64))


def make_regressors(Beta, mu, scale=1.0):
    """Regressors without whitening: deltas are [scale * pool5, 1] Beta + mu."""
    Beta, mu = np.asarray(Beta, np.float64), np.asarray(mu, np.float64)
    eyes, nothing = np.tile(np.eye(4), (len(mu), 1, 1)), np.zeros(len(mu), np.int64)
    return BoxRegressors(tuple(map(str, range(len(mu)))), mu, eyes, eyes, Beta, scale, 1000.0, nothing, nothing)


def half16(*rows):
    return np.array(rows, np.float16)


def same(first, second, **tolerance):
    np.testing.assert_array_equal(first.class_index, second.class_index)
    np.testing.assert_array_equal(first.survives, second.survives)
    np.testing.assert_allclose(first.score, second.score, **tolerance)
    np.testing.assert_allclose(first.boxes, second.boxes, **tolerance)


def detect(boxes, features, pool5, svms, regressors, **limits):
    models = LinearModels(svms, regressors)
    return detect_regions(boxes, features, pool5, size=(HEIGHT, WIDTH), models=models, limits=Limits(**limits))


class TestRegions:
    def test_without_a_limit_every_region_is_moved_as_with_one(self):
        generator = np.random.default_rng(5)
        corner = generator.uniform(0, 40, (30, 2))
        boxes = np.concatenate([corner, corner + generator.uniform(5, 30, (30, 2))], axis=1).astype(np.float32)
        features, pool5 = (generator.normal(size=(30, 6)).astype(np.float16) for _ in range(2))
        svms = make_svms(generator.normal(size=(6, 3)), np.zeros(3))
        regressors = make_regressors(generator.normal(size=(3, 7, 4)) / 20, generator.normal(size=(3, 4)) / 20)
        candidates, expected = (detect(boxes, features, pool5, svms, regressors, max_per_image=limit) for limit in (0, 30))
        same(candidates, expected, atol=1e-3)
        assert len(candidates.score) == 90

    def test_scores_are_the_svms_with_scale_and_bias(self):
        svms = make_svms([[1, 0], [0, -2]], [0.5, 1], scale=3.0)
        boxes = np.float32([[0, 0, 10, 10], [20, 20, 40, 40]])
        candidates = detect(boxes, half16([1, 2], [3, 0]), None, svms, None)
        assert candidates.class_index.tolist() == [0, 0, 1, 1]
        assert candidates.score.tolist() == [9.5, 3.5, 1, -11]
        assert candidates.boxes.tolist() == [boxes[1].tolist(), boxes[0].tolist(), boxes[1].tolist(), boxes[0].tolist()]
        assert candidates.survives.all()

    def test_suppression_is_within_a_class_at_the_threshold(self):
        """IoU 1/3 with the better box: goes at 0.3, stays at 1/3 and above."""
        boxes = np.float32([[0, 0, 20, 10], [10, 0, 30, 10]])
        features = half16([1], [2])
        svms = make_svms([[1]], [0])
        assert detect(boxes, features, None, svms, None).survives.tolist() == [True, False]
        assert detect(boxes, features, None, svms, None, nms_threshold=0.34).survives.all()

    def test_each_class_moves_boxes_by_its_own_regressor(self):
        """A box of 21 pixels measures 20, as in the release: half of it is 10. Class 1 doubles it about its centre."""
        svms = make_svms([[1, 1]], [0, 0])
        regressors = make_regressors(np.zeros((2, 2, 4)), [[0.5, -0.25, 0, 0], [0, 0, np.log(2), np.log(2)]])
        candidates = detect(np.float32([[20, 20, 41, 41]]), half16([1]), half16([9]), svms, regressors)
        np.testing.assert_allclose(candidates.boxes, [[30, 15, 51, 36], [10, 10, 51, 51]], atol=1e-5)

    def test_boxes_move_before_suppression(self):
        """Two equal boxes part, and two distant ones meet: the second feature moves a box by 20 pixels times its value."""
        svms = make_svms([[1], [0]], [0])
        Beta = np.zeros((1, 3, 4))
        Beta[0, 1, 0] = 1.0
        regressors = make_regressors(Beta, np.zeros((1, 4)))
        features = half16([3, 0], [2, 2], [1, 0])
        boxes = np.float32([[0, 0, 21, 21], [0, 0, 21, 21], [40, 0, 61, 21]])
        candidates = detect(boxes, features, features, svms, regressors)
        np.testing.assert_allclose(candidates.boxes[:, 0], [0, 40, 40], atol=1e-4)
        assert candidates.survives.tolist() == [True, True, False]
        assert detect(boxes, features, features, svms, None).survives.tolist() == [True, False, True]

    def test_the_regressors_read_pool5_and_the_svms_their_own_layer(self):
        svms = make_svms([[1], [0], [0]], [0])
        regressors = make_regressors([[[0.5, 0, 0, 0], [0, 0, 0, 0]]], [[0, 0, 0, 0]], scale=0.5)
        boxes = np.float32([[0, 0, 21, 21], [0, 30, 21, 51]])
        candidates = detect(boxes, half16([7, 5, 5], [8, 5, 5]), half16([4], [0]), svms, regressors)
        assert candidates.score.tolist() == [8, 7]
        np.testing.assert_allclose(candidates.boxes, [[0, 30, 21, 51], [20, 0, 41, 21]], atol=1e-5)

    def test_boxes_are_clipped_after_they_moved_and_before_suppression(self):
        """Outside the image two boxes differ; what is left of them inside overlaps by 10 / 20."""
        regressors = make_regressors(np.zeros((1, 2, 4)), [[1.0, 0, 0, 0]])
        boxes = np.float32([[40, 0, 61, 10], [50, 0, 71, 10]])
        candidates = detect(boxes, half16([2], [1]), half16([0], [0]), make_svms([[1]], [0]), regressors)
        np.testing.assert_allclose(candidates.boxes, [[60, 0, 80, 10], [70, 0, 80, 10]], atol=1e-4)
        assert candidates.survives.tolist() == [True, False]
        outside = detect(np.float32([[-5, -6, 200, 100]]), half16([1]), None, make_svms([[1]], [0]), None)
        assert outside.boxes.tolist() == [[0, 0, WIDTH, HEIGHT]]

    def test_only_the_best_of_each_class_are_candidates(self):
        generator = np.random.default_rng(0)
        features, pool5 = generator.normal(size=(50, 4)).astype(np.float16), generator.normal(size=(50, 3)).astype(np.float16)
        corner = generator.uniform(0, 40, (50, 2))
        boxes = np.concatenate([corner, corner + generator.uniform(5, 20, (50, 2))], axis=1).astype(np.float32)
        svms = make_svms(generator.normal(size=(4, 3)), generator.normal(size=3))
        regressors = make_regressors(0.1 * generator.normal(size=(3, 4, 4)), 0.1 * generator.normal(size=(3, 4)))
        candidates = detect(boxes, features, pool5, svms, regressors, max_per_image=7)
        assert np.bincount(candidates.class_index).tolist() == [7, 7, 7]
        moved = np.clip(regressors.predict(pool5, boxes), 0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).transpose(1, 0, 2)  # all of them
        same(candidates, top_scoring(svms.score(features), moved, 7), rtol=1e-5, atol=1e-5)
        scores = svms.score(features)
        for label in range(3):
            np.testing.assert_array_equal(candidates.score[candidates.class_index == label], np.sort(scores[:, label])[::-1][:7])

    @pytest.mark.parametrize("with_regressors", [True, False])
    def test_no_proposals_give_nothing(self, with_regressors):
        regressors = make_regressors(np.zeros((2, 2, 4)), np.zeros((2, 4))) if with_regressors else None
        nothing = np.zeros((0, 1), np.float16)
        boxes = np.zeros((0, 4), np.float32)
        candidates = detect(boxes, nothing, nothing, make_svms([[1, 1]], [0, 0]), regressors)
        assert (len(candidates.score), candidates.boxes.shape, len(candidates.survives)) == (0, (0, 4), 0)

    def test_whole_numbers_as_boxes_move_by_fractions_too(self):
        regressors = make_regressors(np.zeros((1, 2, 4)), [[0.125, 0, 0, 0]])
        boxes = np.array([[0, 0, 21, 21]])
        candidates = detect(boxes, half16([1]), half16([1]), make_svms([[1]], [0]), regressors)
        np.testing.assert_allclose(candidates.boxes, [[2.5, 0, 23.5, 21]], atol=1e-5)
        assert boxes.tolist() == [[0, 0, 21, 21]]


class TestStoreAndImage:
    @pytest.fixture
    def setting(self, tmp_path, make_record):
        """Images, pixels, proposals, network and a store of `pool5` and one of `fc6`, written by the stage's functions."""
        generator = np.random.default_rng(0)
        torch.manual_seed(0)
        backbone = for_inference(make_backbone("tiny"), CPU, "float32")
        pixels, records, proposals = {}, [], []
        for number, count in enumerate((9, 0, 14)):
            corner = generator.uniform(0, 40, (count + 2, 2))
            boxes = np.concatenate([corner, corner + generator.uniform(5, 20, (count + 2, 2))], axis=1).astype(np.float32)
            records.append(make_record(f"image {number}", boxes[:2], [0, 1], HEIGHT, WIDTH))
            proposals.append(boxes[2:])
            pixels[records[-1].id] = generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        regions = [join_regions(*pair) for pair in zip(records, proposals, strict=True)]
        stores = {}
        for layer in ("pool5", "fc6"):
            writer = FeatureWriter(tmp_path / f"{layer}.h5", backbone.sizes[layer], ("a", "b"), {})
            extraction = Extraction("float32", 16, 8, CPU)
            features = list(region_features(regions, lambda record: pixels[record.id], backbone, "pool5", extraction))
            if layer != "pool5":
                features = [layer_from_pool5(values, backbone, layer, CPU) for values in features]
            write_features(regions, features, writer, 2)
            writer.close()
            stores[layer] = FeatureStore([tmp_path / f"{layer}.h5"])
        return records, pixels, proposals, backbone, stores

    @pytest.fixture
    def models(self):
        def make(size):
            generator = np.random.default_rng(1)
            svms = make_svms(generator.normal(size=(size, 2)) / np.sqrt(size), [0.1, -0.1], 0.5)
            Beta = 0.02 * generator.normal(size=(2, 2049, 4)) / np.sqrt(2049)
            return svms, make_regressors(Beta, 0.05 * generator.normal(size=(2, 4)), 0.5)

        return make

    @pytest.mark.parametrize("layer", ["pool5", "fc6"])
    @pytest.mark.parametrize("batch_size", [1, 8, 128])
    def test_pixels_and_store_give_the_same(self, setting, models, layer, batch_size):
        records, pixels, proposals, backbone, stores = setting
        svms, regressors = models(backbone.sizes[layer])
        stored = list(detect_in_store(stores[layer], stores["pool5"], records, LinearModels(svms, regressors), Limits(100, 0.3)))
        assert [len(image.score) for image in stored] == [18, 0, 28]
        detector = RCNNDetector(
            backbone, layer, Extraction("float32", 16, batch_size, CPU), LinearModels(svms, regressors)
        )
        for record, boxes, expected in zip(records, proposals, stored, strict=True):
            same(detector.detect(pixels[record.id], boxes), expected, rtol=1e-3, atol=2e-2)

    def test_a_detector_hands_its_limits_on(self, setting, models):
        _, pixels, proposals, backbone, _ = setting
        detector = RCNNDetector(
            backbone, "pool5", Extraction("float32", 16, 8, CPU), LinearModels(*models(2048)), Limits(3, 1.0)
        )
        candidates = detector.detect(pixels["image 0"], proposals[0])
        assert np.bincount(candidates.class_index).tolist() == [3, 3]
        assert candidates.survives.all()

    def test_ground_truth_takes_no_part(self, setting, models):
        records, _, proposals, _, stores = setting
        svms, _ = models(2048)
        candidates = list(detect_in_store(stores["pool5"], stores["pool5"], records, LinearModels(svms, None), Limits(100, 0.3)))
        for image, boxes in zip(candidates, proposals, strict=True):
            for label in range(2):
                np.testing.assert_array_equal(
                    sorted(image.boxes[image.class_index == label].tolist()), sorted(boxes.tolist())
                )

    def test_limits_are_handed_on(self, setting, models):
        records, *_, stores = setting
        svms, regressors = models(2048)
        linear_models, store = LinearModels(svms, regressors), stores["pool5"]
        candidates = list(detect_in_store(store, store, records, linear_models, Limits(3, 1.0)))
        assert [len(image.score) for image in candidates] == [6, 0, 6]
        assert all(image.survives.all() for image in candidates)
