"""Features of regions against a loop over single boxes, and their way into the store and from layer to layer."""

import numpy as np
import pytest
import torch

from pipeline.feature_store import FeatureStore, FeatureWriter
from pipeline.networks.backbones import IMAGENET, make_backbone
from pipeline.networks.compute import for_inference
from pipeline.rcnn.crop_memory import crops_to_tensor
from pipeline.rcnn.features import (
    Extraction,
    Regions,
    deeper_features,
    join_regions,
    layer_from_pool5,
    region_features,
    warped_batches,
    write_features,
)
from pipeline.rcnn.warp import crop_padding, warp

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
PADDING = 16
COUNTS = (0, 4, 0, 0, 1, 7, 2, 0)  # regions an image


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return for_inference(make_backbone("tiny"), CPU, "float32")


@pytest.fixture
def pixels():
    """The images' pixels by id."""
    generator = np.random.default_rng(0)
    return {f"image {number}": generator.integers(0, 256, (60, 80, 3), np.uint8) for number in range(len(COUNTS))}


@pytest.fixture
def read(pixels):
    return lambda record: pixels[record.id]


@pytest.fixture
def regions(make_record):
    """Regions of images, some without any; the first of each image's is a ground-truth box."""
    generator, regions = np.random.default_rng(1), []
    for number, count in enumerate(COUNTS):
        corner = generator.uniform(-5, 50, (count, 2))
        boxes = np.concatenate([corner, corner + generator.uniform(5, 40, (count, 2))], axis=1)
        record = make_record(f"image {number}", boxes[:1], generator.integers(0, 3, len(boxes[:1])))
        regions.append(join_regions(record, boxes[1:]))
    return regions


def slow_features(regions, read, backbone, layer):
    """Each box warped and sent through the network alone: float32 arrays."""
    features = []
    for of_image in regions:
        values = np.zeros((len(of_image.boxes), backbone.sizes[layer]), np.float32)
        for row, box in enumerate(of_image.boxes):
            crop = np.zeros((1, 64, 64, 3), np.float32)
            warp(read(of_image.image), box[None], crop, IMAGENET.mean, IMAGENET.std, padding=crop_padding(PADDING, 64))
            with torch.inference_mode():
                values[row] = backbone(torch.from_numpy(crop.transpose(0, 3, 1, 2).copy()), layer)[0].numpy()
        features.append(values)
    return features


def extraction(batch_size, readers=1, precision="float32"):
    return Extraction(precision, PADDING, batch_size, CPU, readers)


def features_of(regions, read, backbone, layer="pool5", precision="float32", batch_size=3):
    return list(region_features(regions, read, backbone, layer, extraction(batch_size, precision=precision)))


class TestRegionFeatures:
    @pytest.mark.parametrize("layer", ["pool5", "fc6"])
    @pytest.mark.parametrize("batch_size", [1, 3, 7, 14, 128])
    def test_any_batch_size_gives_what_single_boxes_give(self, regions, read, backbone, layer, batch_size):
        features = features_of(regions, read, backbone, layer, batch_size=batch_size)
        assert [values.shape for values in features] == [(count, backbone.sizes[layer]) for count in COUNTS]
        for values, expected in zip(features, slow_features(regions, read, backbone, layer), strict=True):
            assert values.dtype == np.float16
            np.testing.assert_allclose(values, expected, rtol=2e-3, atol=1e-3)  # float16's rounding

    def test_the_boxes_do_differ(self, regions, read, backbone):
        values = np.concatenate(features_of(regions, read, backbone)).astype(np.float32)
        distance = np.linalg.norm(values[:, None] - values, axis=2) + 1e9 * np.eye(len(values))
        assert distance.min() > 1

    @pytest.mark.parametrize("chosen", [[], [0], [0, 2, 3], [4], [7, 5]])
    def test_few_or_no_regions(self, regions, read, backbone, chosen):
        features = features_of([regions[image] for image in chosen], read, backbone)
        assert [len(values) for values in features] == [COUNTS[image] for image in chosen]

    def test_an_image_is_read_once_in_order_if_it_has_regions(self, regions, read, backbone):
        names = []

        def counting(record):
            names.append(record.id)
            return read(record)

        features_of(regions, counting, backbone, batch_size=1)
        assert names == [f"image {number}" for number, count in enumerate(COUNTS) if count]

    def test_any_number_of_readers_gives_the_same_bytes(self, regions, read, backbone):
        by_readers = [list(region_features(regions, read, backbone, "pool5", extraction(3, readers))) for readers in (1, 2, 9)]
        assert len({np.concatenate(features).tobytes() for features in by_readers}) == 1

    def test_bfloat16_is_close(self, regions, read, backbone):
        exact = np.concatenate(slow_features(regions, read, backbone, "pool5"))
        features = np.concatenate(features_of(regions, read, for_inference(backbone, CPU, "bfloat16"), precision="bfloat16"))
        assert np.linalg.norm(features - exact) < 0.03 * np.linalg.norm(exact)

    def test_an_unreadable_image_is_an_error_here(self, regions, backbone):
        def read(record):
            raise OSError(record.id)

        with pytest.raises(OSError, match="image 1"):
            features_of(regions, read, backbone)


class TestBatches:
    def test_are_full_but_the_last_and_say_whose_rows_they_hold(self, regions, read):
        batches = list(warped_batches(regions, read, 64, IMAGENET, extraction(4)))
        assert [len(batch.crops) for batch in batches] == [4, 4, 4, 2]
        assert [batch.parts for batch in batches] == [[(1, 4)], [(4, 1), (5, 3)], [(5, 4)], [(6, 2)]]

    def test_a_batch_is_not_overwritten_by_the_next(self, regions, read):
        batches = warped_batches(regions, read, 64, IMAGENET, extraction(4))
        first = next(batches)
        before = first.crops.copy()
        list(batches)
        np.testing.assert_array_equal(first.crops, before)

    def test_few_batches_are_ahead_and_none_is_made_when_the_reader_leaves(self, regions, read):
        names = []
        many = [of_image for of_image in regions * 5 if len(of_image.boxes)]
        batches = warped_batches(many, lambda record: names.append(record.id) or read(record), 64, IMAGENET, extraction(1, 2))
        next(batches)
        batches.close()
        assert 1 <= len(names) <= 4  # the first four batches are of one image

    def test_crops_become_a_tensor_without_a_copy(self):
        crops = np.random.default_rng(0).random((2, 5, 5, 3), np.float32)
        tensor = crops_to_tensor(crops, CPU, torch.float32)
        assert tensor.shape == (2, 3, 5, 5)
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert tensor[1, 2, 3, 4] == crops[1, 3, 4, 2]
        assert tensor.data_ptr() == crops.ctypes.data


class TestRegions:
    def test_ground_truth_comes_first(self, make_record):
        record = make_record("a", [[1, 2, 3, 4], [5, 6, 7, 8]], [2, 0])
        joined = join_regions(record, np.array([[9, 10, 11, 12]]))
        assert joined.image is record
        assert joined.boxes.dtype == np.float32
        assert joined.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]

    def test_rows_of_the_store(self, make_record):
        record = make_record("a", [[0, 0, 10, 10], [50, 50, 60, 60]], [2, 0])
        record.difficult[1] = True
        features = np.arange(12, dtype=np.float16).reshape(3, 4)
        rows = join_regions(record, np.float32([[0, 0, 10, 5]])).rows(features, 3)
        assert rows.features is features
        assert rows.gt_labels.tolist() == [2, 0, -1]
        assert rows.gt_labels.dtype == np.int32
        assert rows.difficult.tolist() == [False, True, False]
        assert rows.overlaps.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0.5]]


class TestStore:
    @pytest.fixture
    def store(self, tmp_path, regions, read, backbone):
        writer = FeatureWriter(tmp_path / "pool5.h5", 2048, ("a", "b", "c"), {})
        features = region_features(regions, read, backbone, "pool5", Extraction("float32", PADDING, 3, CPU))
        assert write_features(regions, features, writer, 3) == sum(COUNTS)
        writer.close()
        return FeatureStore([tmp_path / "pool5.h5"])

    def test_holds_each_image_with_its_own_rows(self, store, regions, read, backbone):
        assert store.image_ids == [of_image.image.id for of_image in regions]
        for rows, of_image, values in zip(store, regions, features_of(regions, read, backbone), strict=True):
            np.testing.assert_array_equal(rows.features, values)
            np.testing.assert_array_equal(rows.boxes, of_image.boxes)
            assert rows.gt_labels.tolist() == [*of_image.image.labels, *[-1] * (len(of_image.boxes) - len(of_image.image.labels))]

    def test_deeper_features_are_those_of_the_head(self, store, regions, read, backbone):
        deeper = list(deeper_features(store, backbone, "fc6", CPU))
        for deep, rows, slow in zip(deeper, store, slow_features(regions, read, backbone, "fc6"), strict=True):
            assert deep.features.dtype == np.float16
            assert deep.features.shape == (len(rows.boxes), 256)
            with torch.inference_mode():
                head = backbone.head(torch.from_numpy(rows.features).float(), "fc6").to(torch.float16).numpy()
            np.testing.assert_array_equal(deep.features, head)
            np.testing.assert_allclose(deep.features, slow, rtol=1e-2, atol=1e-2)  # pool5 was rounded to float16
            for name in ("boxes", "overlaps", "gt_labels", "difficult"):
                np.testing.assert_array_equal(getattr(deep, name), getattr(rows, name))

    def test_the_layer_follows_the_precision_of_the_weights(self, backbone):
        pool5 = np.random.default_rng(0).random((3, 2048)).astype(np.float16)
        exact = layer_from_pool5(pool5, backbone, "fc6", CPU)
        low = layer_from_pool5(pool5, for_inference(backbone, CPU, "bfloat16"), "fc6", CPU)
        assert low.dtype == np.float16
        np.testing.assert_allclose(low, exact, atol=0.05)
        assert (low != exact).any()

    @pytest.mark.parametrize("failing", ["image 0", "image 4", f"image {len(COUNTS) - 1}"])
    def test_a_failed_write_is_an_error(self, regions, read, backbone, failing):
        class Full:
            def append(self, image_id, rows):
                if image_id == failing:
                    raise OSError(f"no space for {image_id}")

        with pytest.raises(OSError, match=f"no space for {failing}"):
            write_features(regions, features_of(regions, read, backbone), Full(), 3)

    def test_features_that_do_not_fit_their_regions_are_an_error(self, regions):
        values = [np.zeros((count, 1), np.float16) for count in COUNTS]
        with pytest.raises(AssertionError):
            Regions(regions[1].image, regions[1].boxes).rows(values[4], 3)
        with pytest.raises(ValueError, match="shorter"):
            write_features(regions, values[:-1], _Nowhere(), 3)


class _Nowhere:
    def append(self, image_id, rows):
        pass
