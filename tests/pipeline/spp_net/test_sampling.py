"""Blocks of steps of SPP-net's fine-tuning: which regions of which images they hold, and the rows pooled for them."""

import itertools
import math

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.networks.backbones import MapView
from pipeline.networks.map_store import StoredMap
from pipeline.networks.whole_images import Scaling
from pipeline.rcnn.windows import Windows, label_windows
from pipeline.spp_net.sampling import BLOCK_BYTES, BlockSampler, block_steps, nearest_scales, pool_block, pooled_batches
from pipeline.spp_net.spatial_pyramid import pool_regions

HEIGHT, WIDTH = 60, 80
VIEW = MapView(1)


def make_windows(foreground, background):
    """For each image these numbers of regions of objects and of background; each box has its own corner."""
    images = np.repeat(np.arange(len(foreground)), np.add(foreground, background))
    labels = np.concatenate([[1 + k % 3 for k in range(f)] + [0] * b for f, b in zip(foreground, background)]).astype(np.int64)
    corner = np.random.default_rng(0).uniform(0, 40, (len(images), 2))
    boxes = np.concatenate([corner, corner + np.random.default_rng(1).uniform(8, 40, (len(images), 2))], axis=1)
    return Windows(images.astype(np.int32), boxes.astype(np.float32), labels)


def make_sampler(windows, seed=0, **settings):
    return BlockSampler(windows, seed, **{"mirror": False, "scales": 1, "steps": 1, **settings})


def rows_of(windows, drawn):
    """The number of each drawn region in `windows`."""
    number = {tuple(box): row for row, box in enumerate(windows.boxes.tolist())}
    return np.array([number[tuple(box)] for box in drawn.windows.boxes.tolist()])


class TestSampler:
    def test_a_step_has_32_regions_of_objects_and_96_of_the_background(self):
        windows = make_windows([9, 0, 30], [50, 60, 0])
        drawn = make_sampler(windows, steps=5).draw(0)
        labels = drawn.windows.labels.reshape(5, 128)
        assert (labels[:, :32] > 0).all()
        assert (labels[:, 32:] == 0).all()
        rows = rows_of(windows, drawn)
        np.testing.assert_array_equal(drawn.windows.labels, windows.labels[rows])
        np.testing.assert_array_equal(drawn.windows.image, windows.image[rows])

    def test_every_region_comes_once_before_any_comes_again(self):
        windows = make_windows([9, 0, 30], [50, 60, 0])
        counts = np.bincount(rows_of(windows, make_sampler(windows, steps=3).draw(0)), minlength=len(windows))
        for kind, drawn in ((windows.labels > 0, 3 * 32), (windows.labels == 0, 3 * 96)):
            whole = drawn // kind.sum()
            assert set(counts[kind]) == {whole, whole + 1}

    def test_images_come_until_both_kinds_are_plenty(self):
        """Ten times 32 is more than 8 images of 40 have; ten times 96 is what 24 images of 40 have, and the next one is more."""
        few = make_sampler(make_windows([40] * 50, [2000] * 50)).draw(0)
        assert len(set(few.windows.image.tolist())) <= 9
        many = make_sampler(make_windows([4000] * 50, [40] * 50)).draw(0)
        seen = set(many.windows.image[many.windows.labels == 0].tolist())
        assert 20 < len(seen) <= 25
        all_of_them = make_sampler(make_windows([1] * 50, [4] * 50), steps=4).draw(0)
        assert set(all_of_them.windows.image.tolist()) == set(range(50))

    def test_any_block_can_be_drawn_alone(self):
        windows = make_windows([9, 3, 30], [50, 60, 9])
        first, second = make_sampler(windows, mirror=True, scales=3), make_sampler(windows, mirror=True, scales=3)
        forwards, backwards = [first.draw(k) for k in range(4)], [second.draw(k) for k in range(4)[::-1]][::-1]
        for left, right in zip(forwards, backwards):
            for name in ("mirrored", "scale"):
                np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
            np.testing.assert_array_equal(left.windows.boxes, right.windows.boxes)
        different = [tuple(rows_of(windows, drawn)) for drawn in (*forwards, make_sampler(windows, 1, mirror=True).draw(0))]
        assert len(set(different)) == 5

    def test_mirror_images_are_images_like_others(self):
        windows = make_windows([9, 3, 30], [50, 60, 9])
        assert not make_sampler(windows, steps=8).draw(0).mirrored.any()
        drawn = make_sampler(windows, mirror=True, steps=8).draw(0)
        assert drawn.mirrored.dtype == bool
        for kind in drawn.windows.labels > 0, drawn.windows.labels == 0:
            assert 0.4 < drawn.mirrored[kind].mean() < 0.6

    def test_scales_are_equally_likely(self):
        drawn = make_sampler(make_windows([9, 3, 30], [50, 60, 9]), scales=5, steps=20).draw(0)
        np.testing.assert_allclose(np.bincount(drawn.scale) / len(drawn.scale), [0.2] * 5, atol=0.04)

    def test_a_scale_that_is_given_stays_with_its_region(self):
        windows = make_windows([9, 3, 30], [50, 60, 9])
        scales = np.random.default_rng(0).integers(0, 4, len(windows))
        drawn = make_sampler(windows, scales=scales, steps=3).draw(0)
        np.testing.assert_array_equal(drawn.scale, scales[rows_of(windows, drawn)])

    @pytest.mark.parametrize(("foreground", "background", "found"), [([0], [5], "0 .* and 5"), ([4], [0], "4 .* and 0")])
    def test_one_kind_alone_is_an_error(self, foreground, background, found):
        expected = rf"found {found} with IoU from 0.1 .*; raise --max-proposals, or .*--spp-layer pool5"
        with pytest.raises(PipelineError, match=expected):
            make_sampler(make_windows(foreground, background))

    def test_blocks_fit_into_memory(self):
        assert block_steps(1) == 500  # iter_per_batch of the release
        for values in (6400, 12800, 25600):
            assert BLOCK_BYTES / 2 < 128 * 2 * values * block_steps(values) <= BLOCK_BYTES
        assert block_steps(10**9) == 1


def test_background_below_an_iou_is_left_out(make_record):
    """IoUs of 1, 0.5, 0.49, 0.1, 0.09 and 0."""
    record = make_record("one", [[0, 0, 100, 100]], [2], 300, 300)
    boxes = np.float32([[0, 0, 100, 50], [0, 0, 100, 49], [0, 0, 100, 10], [0, 0, 100, 9], [200, 200, 220, 220]])
    windows = label_windows([record], lambda number: boxes, 0.1)
    assert windows.labels.tolist() == [3, 3, 0, 0]
    np.testing.assert_array_equal(windows.boxes, np.concatenate([record.boxes, boxes[:3]]))
    assert label_windows([record], lambda number: boxes).labels.tolist() == [3, 3, 0, 0, 0, 0]
    empty = make_record("none", np.zeros((0, 4)), [], 300, 300)
    assert len(label_windows([empty], lambda number: boxes, 0.1)) == 0


def test_nearest_scales_are_those_of_detection(make_record):
    """Images of other sizes, one of them without windows; the limit of the longer side makes two scales one."""
    windows = make_windows([9, 0, 30], [50, 0, 9])
    images = [make_record(f"image {k}", np.zeros((0, 4)), [], *size) for k, size in enumerate([(60, 80), (9, 9), (100, 50)])]
    scales = nearest_scales(windows, images, (60, 120, 240), 300, 64)
    for image, box, number in zip(windows.image, windows.boxes, scales, strict=True):
        record = images[image]
        areas = []
        for shorter in (60, 120, 240):
            factor = min(shorter / min(record.height, record.width), 300 / max(record.height, record.width))
            areas.append(float(np.prod(box[2:] - box[:2])) * factor**2)
        assert abs(areas[number] - 64**2) == pytest.approx(min(abs(area - 64**2) for area in areas), rel=0.05)
    assert set(scales.tolist()) == {0, 1, 2}


class Maps:
    """Random maps of three images at two scales; counts how often each is read."""

    def __init__(self):
        self.read_ones = []

    def read(self, image, scale, mirrored):
        self.read_ones.append((image, scale, mirrored))
        scaling = Scaling.of(HEIGHT, WIDTH, (60, 120)[scale], 1000)
        size = [math.ceil(side / 16) for side in scaling.size]
        cells = np.random.default_rng([image, scale, mirrored]).normal(size=(*size, 2)).astype(np.float16)
        return StoredMap(cells, scaling)


def pool(stored, boxes):
    return pool_regions(stored, boxes, VIEW, (1, 3))


@pytest.fixture
def records(make_record):
    return [make_record(f"image {number}", np.zeros((0, 4)), [], HEIGHT, WIDTH) for number in range(3)]


class TestPooling:
    def sampler(self):
        return make_sampler(make_windows([9, 3, 30], [50, 60, 9]), mirror=True, scales=2, steps=2)

    def test_each_row_is_pooled_from_its_own_map(self, records):
        drawn, maps = self.sampler().draw(0), Maps()
        pooled = pool_block(drawn, records, maps.read, pool)
        assert (pooled.shape, pooled.dtype) == ((256, 20), np.float16)
        assert len(maps.read_ones) == len(set(maps.read_ones)) == 12  # each image and its mirror image at each scale
        for row, box, image, mirrored, scale in zip(
            pooled, drawn.windows.boxes, drawn.windows.image, drawn.mirrored, drawn.scale, strict=True
        ):
            x1, y1, x2, y2 = box
            seen = np.float32([WIDTH - x2, y1, WIDTH - x1, y2]) if mirrored else box
            np.testing.assert_array_equal(row, pool(maps.read(image, scale, int(mirrored)), seen[None])[0])

    @pytest.mark.parametrize("first", [0, 1, 2, 5])
    def test_batches_from_any_step_on(self, records, first):
        def batches(start, count):
            return list(itertools.islice(pooled_batches(self.sampler(), records, Maps().read, pool, start), count))

        expected = batches(0, 7)[first:]
        for (rows, labels), (their_rows, their_labels) in zip(batches(first, 7 - first), expected, strict=True):
            assert (rows.shape, labels.shape) == ((128, 20), (128,))
            np.testing.assert_array_equal(rows, their_rows)
            np.testing.assert_array_equal(labels, their_labels)
