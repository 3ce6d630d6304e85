"""SPP-net: scales by hand, features against a slow version written from the paper, and detections with models made by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.boxes import iou
from pipeline.detection.candidates import Limits
from pipeline.networks.backbones import MapView, make_backbone
from pipeline.networks.compute import for_inference
from pipeline.networks.map_store import StoredMap
from pipeline.networks.whole_images import Scaling, image_tensor
from pipeline.rcnn.box_regression import BoxRegressors
from pipeline.rcnn.detect import LinearModels
from pipeline.rcnn.svm import EVENT, LinearSVMs
from pipeline.spp_net.detect import SPPNetDetector
from pipeline.spp_net.pyramid_layers import put_on_pyramid
from pipeline.spp_net.spatial_pyramid import (
    choose_scales,
    pyramid_features,
    pyramid_size,
    repeated_regions,
    stored_map,
)
from tests.tiers import examples

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
HEIGHT, WIDTH = 60, 80
NONE = np.zeros((0, 4), np.float32)
VIEW = MapView(1)


def random_map(seed, shorter, channels=2, height=HEIGHT, width=WIDTH):
    scaling = Scaling.of(height, width, shorter, 1000)
    size = [math.ceil(side / 16) for side in scaling.size]
    return StoredMap(np.random.default_rng(seed).normal(size=(*size, channels)).astype(np.float16), scaling)


def random_boxes(seed, count, height=HEIGHT, width=WIDTH):
    """Some reach out of the image, some lie outside, some are smaller than a cell."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-0.2, 1, (count, 2)) * [width, height]
    return np.concatenate([corner, corner + rng.uniform(0.01, 1.2, (count, 2)) ** 2 * [width, height]], axis=1).astype(np.float32)


def slow_cells(first, end, count):
    """Of `count` cells centred on 0, 16, 32, ... those centred between the pixels `first` and `end` - 1, or the nearest one."""
    last = end - 1
    inside = [cell for cell in range(count) if first < 16 * cell < last]
    return inside or [min(range(count), key=lambda cell: (abs(16 * cell - (first + last) / 2), -cell))]


def slow_features(stored, box, levels=(1, 2, 3, 6)):
    """Appendix A of SPP-net, one bin at a time."""
    box = (box * np.float32([*stored.scaling.factors] * 2)).tolist()
    height, width, _ = stored.cells.shape
    rows, columns = slow_cells(box[1], box[3], height), slow_cells(box[0], box[2], width)
    window, bins = stored.cells[rows][:, columns], []
    for level in levels:
        for i, j in itertools.product(range(level), repeat=2):
            (top, bottom), (left, right) = (
                (math.floor(place * len(cells) / level), math.ceil((place + 1) * len(cells) / level))
                for place, cells in ((i, rows), (j, columns))
            )
            bins.append(window[top:bottom, left:right].max(axis=(0, 1)))
    return np.concatenate(bins)


class TestScales:
    def test_by_hand(self):
        """Areas of 100, 2500, 6400, 1000 and 400, times 1, 4 and 16, against 4096; then against 50176."""
        scalings = [Scaling((HEIGHT * factor, WIDTH * factor), (factor, factor)) for factor in (1, 2, 4)]
        boxes = np.float32([[0, 0, 10, 10], [10, 20, 60, 70], [-10, 0, 70, 80], [0, 0, 40, 25], [0, 0, 100, 4]])
        assert choose_scales(boxes, scalings, 64).tolist() == [2, 0, 0, 1, 2]
        assert choose_scales(boxes, scalings[::-1], 64).tolist() == [0, 2, 2, 1, 0]
        assert choose_scales(boxes, scalings, 224).tolist() == [2, 2, 1, 2, 2]
        assert choose_scales(boxes, scalings[1:2], 64).tolist() == [0] * 5

    def test_areas_are_those_of_the_scaled_image(self):
        """An image of one row: scaled by (4, 1), an area grows to four times its size."""
        scalings = [Scaling((1, 100), (4.0, 1.0)), Scaling((1, 50), (2.0, 1.0))]
        assert choose_scales(np.float32([[0, 0, 25, 1], [0, 0, 50, 1]]), scalings, 10).tolist() == [0, 1]

    def test_of_scales_as_close_the_first(self):
        """An area of 50 becomes 50 or 150: as far from 100."""
        scalings = [Scaling((HEIGHT, WIDTH), (1.0, 1.0)), Scaling((HEIGHT, 3 * WIDTH), (3.0, 1.0))]
        box = np.float32([[0, 0, 10, 5]])
        assert choose_scales(box, scalings, 10).tolist() == choose_scales(box, scalings[::-1], 10).tolist() == [0]

    def test_no_boxes(self):
        assert choose_scales(NONE, [Scaling((HEIGHT, WIDTH), (1.0, 1.0))], 64).shape == (0,)


class TestFeatures:
    def test_sizes(self):
        assert (pyramid_size(256), pyramid_size(3, (1, 2))) == (12800, 15)  # section 4.1: 12,800 values with 256 channels

    @settings(deadline=None, max_examples=examples(60))
    @given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 200), st.integers(0, 6), st.integers(0, 10**6))
    def test_are_the_slow_version(self, height, width, shorter, count, seed):
        stored, boxes = random_map(seed, shorter, 2, height, width), random_boxes(seed, count, height, width)
        features = pyramid_features([stored], boxes, 64, VIEW)
        assert (features.shape, features.dtype) == ((count, 100), np.float16)
        for row, box in zip(features, boxes):
            np.testing.assert_array_equal(row, slow_features(stored, box))

    def test_by_hand(self):
        """Twice enlarged, the box has the pixels 2 .. 49 and 16 .. 33: columns 1, 2 and 3 and row 2 (16 itself is outside)."""
        cells = np.arange(40, dtype=np.float16).reshape(4, 5, 2)
        features = pyramid_features([StoredMap(cells, Scaling((60, 80), (2.0, 2.0)))], [[1, 8, 25, 17]], 64, VIEW, (1, 2))
        assert features.tolist() == [[26, 27, 24, 25, 26, 27, 24, 25, 26, 27]]

    def test_cells_that_are_centred_elsewhere(self):
        """Cells centred on the pixels 7.5, 23.5, 39.5, ...: columns 0, 1 and 2, and row 1 alone."""
        cells = np.arange(40, dtype=np.float16).reshape(4, 5, 2)
        stored = StoredMap(cells, Scaling((60, 80), (2.0, 2.0)))
        features = pyramid_features([stored], [[1, 8, 25, 17]], 64, MapView(1, centre=7.5), (1,))
        assert features.tolist() == [[14, 15]]

    def test_a_box_of_everything_has_all_cells_but_those_on_its_edge(self):
        stored = random_map(0, 60, 4)  # 4 x 5 cells
        features = pyramid_features([stored], [[0, 0, WIDTH, HEIGHT], [-1, -1, WIDTH + 1, HEIGHT + 1]], 64, VIEW)[:, :4]
        np.testing.assert_array_equal(features, [stored.cells[1:, 1:].max(axis=(0, 1)), stored.cells.max(axis=(0, 1))])

    def test_boxes_beyond_the_image_have_what_is_there(self):
        stored = random_map(0, 60, 4)
        features = pyramid_features([stored], [[-500, 5, 900, 30], [-1, 5, 81, 30], [500, 5, 600, 30], [79, 5, 80, 30]], 64, VIEW)
        np.testing.assert_array_equal(features[0], features[1])
        np.testing.assert_array_equal(features[2], features[3])  # the last column
        np.testing.assert_array_equal(features[2], np.tile(stored.cells[1, 4], 50))

    def test_rows_take_the_map_of_their_own_scale(self):
        maps, boxes = [random_map(seed, shorter) for seed, shorter in enumerate((48, 100, 200))], random_boxes(1, 60)
        chosen = choose_scales(boxes, [stored.scaling for stored in maps], 64)
        assert np.bincount(chosen).min() > 5
        features = pyramid_features(maps, boxes, 64, VIEW)
        for row, box, number in zip(features, boxes, chosen):
            np.testing.assert_array_equal(row, slow_features(maps[number], box))

    def test_the_size_of_crops_chooses_the_scale(self):
        maps, box = [random_map(0, 60), random_map(1, 240)], np.float32([[10, 10, 30, 30]])
        np.testing.assert_array_equal(pyramid_features(maps, box, 20, VIEW)[0], slow_features(maps[0], box[0]))
        np.testing.assert_array_equal(pyramid_features(maps, box, 80, VIEW)[0], slow_features(maps[1], box[0]))

    @pytest.mark.parametrize("levels", [(1,), (4, 2, 1), [3, 2]])
    def test_other_levels_and_types(self, levels):
        stored, boxes = random_map(0, 200), random_boxes(0, 9)
        single = StoredMap(stored.cells.astype(np.float32), stored.scaling)
        features = pyramid_features([single], boxes, 64, VIEW, levels)
        assert features.dtype == np.float32
        np.testing.assert_array_equal(features, [slow_features(single, box, levels) for box in boxes])

    def test_no_boxes(self):
        for boxes in (NONE, []):
            features = pyramid_features([random_map(0, 60), random_map(1, 90)], boxes, 64, VIEW)
            assert (features.shape, features.dtype) == ((0, 100), np.float16)


class TestRepeated:
    def test_by_hand(self):
        """Twice enlarged: columns 1 to 3 of row 2 three times; then the same from another map, and one column less."""
        first, larger = random_map(0, 120), random_map(1, 480)
        boxes = np.float32([[1, 8, 25, 17], [2, 9, 24.6, 16.9], [1, 8, 25, 17], [1, 8, 20, 17]])
        assert repeated_regions([first], boxes, 64, VIEW).tolist() == [False, True, True, False]
        assert repeated_regions([first, larger], boxes[:1], 64, VIEW).tolist() == [False]
        assert repeated_regions([first], NONE, 64, VIEW).shape == (0,)

    @pytest.mark.parametrize("shorters", [(48,), (48, 100, 200)])
    def test_are_those_whose_cells_an_earlier_one_has(self, shorters):
        maps, boxes = [random_map(seed, shorter) for seed, shorter in enumerate(shorters)], random_boxes(1, 300)
        chosen, seen, expected = choose_scales(boxes, [stored.scaling for stored in maps], 64), set(), []
        for number, box in zip(chosen.tolist(), boxes):
            stored = maps[number]
            x1, y1, x2, y2 = (box * np.float32([*stored.scaling.factors] * 2)).tolist()
            height, width, _ = stored.cells.shape
            key = number, *slow_cells(x1, x2, width), "rows", *slow_cells(y1, y2, height)
            expected.append(key in seen)
            seen.add(key)
        repeated = repeated_regions(maps, boxes, 64, VIEW)
        assert repeated.tolist() == expected
        assert 20 < repeated.sum() < 280


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return for_inference(make_backbone("tiny"), CPU, "float32")


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def slow_map(backbone, pixels, size, mirror=False):
    scaling = Scaling(size, (size[1] / WIDTH, size[0] / HEIGHT))
    with torch.inference_mode():
        values = backbone.trunk(image_tensor(pixels, scaling, MapView(1, border=7), CPU, mirror=mirror))
    return StoredMap(np.moveaxis(values[0].numpy(), 0, 2).astype(np.float16), scaling)


@pytest.mark.parametrize("mirror", [False, True])
def test_a_stored_map_is_the_trunks_in_half_precision_with_channels_last(tiny, pixels, mirror):
    stored, expected = stored_map(tiny, pixels, 96, 120, CPU, mirror=mirror), slow_map(tiny, pixels, (90, 120), mirror)
    assert stored.scaling == expected.scaling
    assert (stored.cells.shape, stored.cells.dtype) == ((6, 8, 128), np.float16)
    assert stored.cells.flags.c_contiguous
    np.testing.assert_array_equal(stored.cells, expected.cells)


def make_svms(W, B, scale):
    nothing = np.zeros(len(B), np.int64)
    W, B = np.asarray(W, np.float32), np.asarray(B, np.float32)
    return LinearSVMs(("a", "b"), W, B, scale, nothing, nothing, nothing, np.zeros(0, EVENT), np.zeros((0, 3), np.int64))


def make_regressors(mu, num_features):
    """Regressors that move each class's boxes by `mu`, whatever their features."""
    mu, nothing = np.asarray(mu, np.float64), np.zeros(len(mu), np.int64)
    eyes, Beta = np.tile(np.eye(4), (len(mu), 1, 1)), np.zeros((len(mu), num_features + 1, 4))
    return BoxRegressors(("a", "b"), mu, eyes, eyes, Beta, 1.0, 1000.0, nothing, nothing)


class TestDetector:
    SCALES, SIZES, LEVELS = (240, 60), ((240, 320), (60, 80)), (1, 3)

    @pytest.fixture
    def boxes(self):
        corner = np.random.default_rng(0).uniform(0, 40, (30, 2))
        return np.concatenate([corner, corner + np.random.default_rng(1).uniform(8, 40, (30, 2))], axis=1).astype(np.float32)

    @pytest.fixture
    def svms(self):
        return make_svms(np.random.default_rng(0).normal(size=(1280, 2)) / 36, [0.25, -0.5], 0.5)

    def make(self, backbone, models, scales, longest):
        return SPPNetDetector(backbone, CPU, models, scales=scales, longest=longest, levels=self.LEVELS)

    def test_scores_are_the_svms_on_the_features_of_each_regions_own_scale(self, tiny, pixels, boxes, svms):
        candidates = self.make(tiny, LinearModels(svms, None), self.SCALES, 1000).detect(pixels, boxes)
        maps = [slow_map(tiny, pixels, size) for size in self.SIZES]
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        nearest = [min((0, 1), key=lambda k: abs(area * (16, 1)[k] - 64**2)) for area in areas]
        assert 5 < sum(nearest) < 25
        features = np.stack([slow_features(maps[k], box, self.LEVELS) for k, box in zip(nearest, boxes)]).astype(np.float64)
        scores = 0.5 * features @ svms.W + [0.25, -0.5]
        for label in range(2):
            mine = candidates.class_index == label
            order = np.argsort(candidates.boxes[mine, 0])  # many have the same features, so their scores are equal
            expected = np.argsort(boxes[:, 0])
            clipped = np.clip(boxes, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
            np.testing.assert_array_equal(candidates.boxes[mine][order], clipped[expected])
            np.testing.assert_allclose(candidates.score[mine][order], scores[expected, label], rtol=1e-4, atol=1e-4)
            assert (np.diff(candidates.score[mine]) <= 0).all()
            kept = []
            for box in candidates.boxes[mine]:
                kept += [box] if not kept or iou(box, np.array(kept)).max() <= 0.3 else []
            np.testing.assert_array_equal(candidates.boxes[mine & candidates.survives], kept)

    def test_regressors_move_each_classs_boxes(self, tiny, pixels, svms):
        """Boxes of 21 pixels measure 20: class a moves by 10 pixels to the right, class b by 5 upwards."""
        regressors = make_regressors([[0.5, 0, 0, 0], [0, -0.25, 0, 0]], 1280)
        detector = self.make(tiny, LinearModels(svms, regressors), [60], 1000)
        candidates = detector.detect(pixels, np.float32([[20, 20, 41, 41]]))
        np.testing.assert_allclose(candidates.boxes, [[30, 20, 51, 41], [20, 15, 41, 36]], atol=1e-4)

    def test_svms_may_read_a_layer_on_the_pyramid_regressors_read_the_pyramid(self, tiny, pixels, boxes):
        """The SVMs weight fc6; the regressors move by what the pyramid holds."""
        put_on_pyramid(tiny, self.LEVELS)
        svms = make_svms(np.random.default_rng(0).normal(size=(256, 2)), [0.25, -0.5], 0.5)
        regressors = make_regressors(np.zeros((2, 4)), 1280)
        regressors.Beta[:] = np.random.default_rng(1).normal(size=regressors.Beta.shape) / 1e4
        detector = SPPNetDetector(
            tiny, CPU, LinearModels(svms, regressors), scales=[60], longest=1000, levels=self.LEVELS, layer="fc6"
        )
        candidates = detector.detect(pixels, boxes)
        stored = slow_map(tiny, pixels, (60, 80))
        pyramid = np.stack([slow_features(stored, box, self.LEVELS) for box in boxes])
        with torch.inference_mode():
            fc6 = tiny.head(torch.from_numpy(pyramid).float(), "fc6").to(torch.float16).double().numpy()
        scores, moved = 0.5 * fc6 @ svms.W + [0.25, -0.5], regressors.predict(pyramid, boxes)
        for label in range(2):
            mine = candidates.class_index == label
            order = np.argsort(-scores[:, label], kind="stable")
            np.testing.assert_allclose(candidates.score[mine], scores[order, label], rtol=1e-3, atol=1e-3)
            expected = np.clip(moved[label], 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
            np.testing.assert_allclose(
                candidates.boxes[mine][np.argsort(candidates.boxes[mine][:, 0])], expected[np.argsort(expected[:, 0])], atol=1e-3
            )

    def test_the_longer_side_has_its_limit(self, tiny, pixels, boxes, svms):
        candidates, expected = (
            self.make(tiny, LinearModels(svms, None), scales, longest).detect(pixels, boxes)
            for scales, longest in (([240], 80), ([60], 1000))
        )
        np.testing.assert_array_equal(candidates.score, expected.score)

    def test_limits_are_handed_on(self, tiny, pixels, boxes, svms):
        candidates = SPPNetDetector(
            tiny, CPU, LinearModels(svms), Limits(3, 1.0), scales=[60], longest=1000, levels=self.LEVELS
        ).detect(pixels, boxes)
        assert np.bincount(candidates.class_index).tolist() == [3, 3]
        assert candidates.survives.all()

    def test_no_proposals_give_nothing(self, tiny, pixels, svms):
        regressors = make_regressors(np.zeros((2, 4)), 1280)
        candidates = self.make(tiny, LinearModels(svms, regressors), self.SCALES, 1000).detect(pixels, NONE)
        assert (len(candidates.score), candidates.boxes.shape, len(candidates.survives)) == (0, (0, 4), 0)
