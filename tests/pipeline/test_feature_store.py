"""The feature store: layout as described, round trips over several files, and damage that never passes unseen."""

import hashlib
from dataclasses import replace

import h5py
import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.feature_store import COLUMNS, COMPRESSIONS, GZIP, SPARSE, FeatureStore, FeatureWriter, ImageFeatures

CLASSES = ("cat", "dog", "zèbre")
NUM_FEATURES = 7


def random_rows(generator, count, num_features=NUM_FEATURES, classes=CLASSES):
    corner = generator.uniform(0, 50, (count, 2))
    return ImageFeatures(
        features=generator.normal(size=(count, num_features)).astype(np.float16),
        boxes=np.concatenate([corner, corner + generator.uniform(1, 50, (count, 2))], axis=1).astype(np.float32),
        overlaps=generator.random((count, len(classes))).astype(np.float32),
        gt_labels=generator.integers(-1, len(classes), count).astype(np.int32),
        difficult=generator.random(count) < 0.3,
    )


def write(path, images, num_features=NUM_FEATURES, compression="none", **attributes):
    """`images`: (id, rows) pairs."""
    writer = FeatureWriter(path, num_features, CLASSES, attributes, compression=compression)
    for image_id, rows in images:
        writer.append(image_id, rows)
    writer.close()
    return path


def assert_same(stored, expected, rows=slice(None)):
    for name in ("features", *COLUMNS):
        values = getattr(stored, name)
        assert values.dtype == getattr(expected, name).dtype, name
        np.testing.assert_array_equal(values, getattr(expected, name)[rows], err_msg=name)


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return [(f"image {number}", random_rows(generator, count)) for number, count in enumerate((5, 0, 1, 12, 0))]


class TestLayout:
    def test_is_what_the_description_says(self, tmp_path, images):
        path = write(tmp_path / "features.h5", images, backbone="tiny", layer="fc6", crop_size=64)
        counts = [len(rows.boxes) for _, rows in images]
        total = sum(counts)
        with h5py.File(path) as file:
            assert {name: (data.shape, data.dtype) for name, data in file.items() if name != "image_ids"} == {
                "features": ((total, NUM_FEATURES), np.float16), "boxes": ((total, 4), np.float32),
                "image_index": ((total,), np.int32), "image_offsets": ((len(images) + 1,), np.int64),
                "overlaps": ((total, 3), np.float32), "max_overlap": ((total,), np.float32), "gt_labels": ((total,), np.int32),
                "difficult": ((total,), np.bool_),
            }
            assert file["image_ids"].asstr()[:].tolist() == [image_id for image_id, _ in images]
            assert file["image_offsets"][:].tolist() == [0, 5, 5, 6, 18, 18]
            np.testing.assert_array_equal(file["image_index"][:], np.repeat(np.arange(len(images)), counts))
            np.testing.assert_array_equal(file["max_overlap"][:], file["overlaps"][:].max(axis=1))
            attributes = dict(file.attrs)
            assert attributes.pop("classes").tolist() == list(CLASSES)
            assert attributes.pop("box_convention") == "x1, y1, x2, y2 in pixels; 0-based; x2, y2 exclusive"
            assert attributes == {"backbone": "tiny", "layer": "fc6", "crop_size": 64}

    def test_two_writes_give_the_same_bytes(self, tmp_path, images):
        paths = [write(tmp_path / name, images, layer="pool5") for name in ("one.h5", "two.h5")]
        assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}) == 1

    def test_large_features_lie_in_chunks_of_about_a_megabyte(self, tmp_path):
        path = write(tmp_path / "features.h5", [("a", random_rows(np.random.default_rng(0), 70, 9216))], 9216)
        with h5py.File(path) as file:
            assert file["features"].chunks == (2**20 // (2 * 9216), 9216)
            assert all(file[name].fletcher32 for name in ("features", "image_index", "max_overlap", *COLUMNS))
        assert FeatureStore([path]).read(0).features.shape == (70, 9216)


class TestRoundTrip:
    def test_several_files_are_read_as_one(self, tmp_path, images):
        store = FeatureStore([write(tmp_path / "a.h5", images[:2]), write(tmp_path / "b.h5", images[2:3]),
                              write(tmp_path / "c.h5", []), write(tmp_path / "d.h5", images[3:])])
        assert store.image_ids == [image_id for image_id, _ in images]
        assert (store.num_images, store.num_features, store.classes) == (5, NUM_FEATURES, CLASSES)
        assert [store.num_rows(image) for image in range(5)] == [5, 0, 1, 12, 0]
        for image, (_, rows) in enumerate(images):
            assert_same(store.read(image), rows)
        assert [len(rows.boxes) for rows in store] == [5, 0, 1, 12, 0]

    def test_more_files_than_are_held_open(self, tmp_path):
        generator = np.random.default_rng(0)
        images = [(str(number), random_rows(generator, 3)) for number in range(40)]
        store = FeatureStore([write(tmp_path / f"{image_id}.h5", [(image_id, rows)]) for image_id, rows in images])
        for _ in range(2):
            for stored, (_, rows) in zip(store, images, strict=True):
                assert_same(stored, rows)

    def test_images_that_span_several_chunks(self, tmp_path):
        generator = np.random.default_rng(0)
        images = [(str(count), random_rows(generator, count, 4096)) for count in (100, 300, 20)]
        store = FeatureStore([write(tmp_path / "features.h5", images, 4096)])
        with h5py.File(store.paths[0]) as file:
            assert file["features"].chunks[0] == 128
        for image, (_, rows) in enumerate(images):
            assert_same(store.read(image), rows)

    @pytest.mark.parametrize("rows", [[0], [11], [3, 4, 9], range(12), []])
    def test_chosen_rows(self, tmp_path, images, rows):
        store = FeatureStore([write(tmp_path / "features.h5", images)])
        rows = np.array(rows, np.int64)
        assert_same(store.read(3, rows), images[3][1], rows)

    def test_annotations_are_everything_but_the_features(self, tmp_path, images):
        store = FeatureStore([write(tmp_path / "features.h5", images)])
        for image, (_, rows) in enumerate(images):
            annotations = store.annotations(image)
            assert not hasattr(annotations, "features")
            for name in COLUMNS:
                np.testing.assert_array_equal(getattr(annotations, name), getattr(rows, name))

    def test_every_float16_keeps_its_bits(self, tmp_path):
        values = np.arange(2**16, dtype=np.uint16).view(np.float16)[:, None]
        rows = random_rows(np.random.default_rng(0), 2**16, 1)
        rows = replace(rows, features=values)
        restored = FeatureStore([write(tmp_path / "features.h5", [("a", rows)], 1)]).read(0).features
        np.testing.assert_array_equal(restored.view(np.uint16), values.view(np.uint16))

    def test_a_store_without_rows(self, tmp_path, images):
        store = FeatureStore([write(tmp_path / "features.h5", [images[1], images[4]])])
        assert [store.num_rows(image) for image in range(store.num_images)] == [0, 0]
        assert store.read(0).features.shape == (0, NUM_FEATURES)
        assert store.read(1, np.zeros(0, np.int64)).overlaps.shape == (0, 3)

    def test_a_closed_store_opens_again(self, tmp_path, images):
        store = FeatureStore([write(tmp_path / "features.h5", images)])
        store.close()
        assert_same(store.read(3), images[3][1])


class TestDamage:
    @pytest.mark.parametrize("name", ["features", *COLUMNS])
    @pytest.mark.parametrize("bit", [0, 7])
    def test_one_flipped_bit_is_an_error_that_names_the_file(self, tmp_path, images, name, bit):
        path = write(tmp_path / "features.h5", images)
        with h5py.File(path) as file:
            place = file[name].id.get_chunk_info(0).byte_offset + 3 * file[name].dtype.itemsize
        content = bytearray(path.read_bytes())
        content[place] ^= 1 << bit
        path.write_bytes(content)
        with pytest.raises(PipelineError) as caught:
            FeatureStore([path]).read(0)
        assert str(caught.value).startswith(f"{path}: not an intact store (")
        assert str(caught.value).endswith(")")

    @pytest.mark.parametrize("entry", range(6))
    def test_a_flipped_bit_in_the_offsets_is_an_error(self, tmp_path, images, entry):
        path = write(tmp_path / "features.h5", images)
        with h5py.File(path) as file:
            place = file["image_offsets"].id.get_offset() + 8 * entry
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(PipelineError, match=r"features\.h5: .*image_offsets and image_index disagree"):
            FeatureStore([path])

    def test_an_image_id_that_is_no_utf8_is_an_error(self, tmp_path, images):
        path = write(tmp_path / "features.h5", [("unmistakable", images[0][1])])
        path.write_bytes(path.read_bytes().replace(b"unmistakable", b"unmistak\xffble"))
        with pytest.raises(PipelineError, match=r"features\.h5: not an intact store \('utf-8' codec"):
            FeatureStore([path])

    def test_the_intact_files_of_a_store_are_not_blamed(self, tmp_path, images):
        paths = [write(tmp_path / "a.h5", images[:2]), write(tmp_path / "b.h5", images[2:])]
        with h5py.File(paths[1]) as file:
            place = file["features"].id.get_chunk_info(0).byte_offset
        content = bytearray(paths[1].read_bytes())
        content[place] ^= 1
        paths[1].write_bytes(content)
        store = FeatureStore(paths)
        assert_same(store.read(0), images[0][1])
        with pytest.raises(PipelineError, match=r"b\.h5: not an intact"):
            store.read(3)

    @pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
    def test_a_truncated_file_is_refused_at_once(self, tmp_path, images, share):
        path = write(tmp_path / "features.h5", images)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(PipelineError, match=r"features\.h5: not an intact store"):
            FeatureStore([path])

    def test_a_file_that_was_never_completed_is_refused(self, tmp_path, images):
        writer = FeatureWriter(tmp_path / "features.h5", NUM_FEATURES, CLASSES, {})
        writer.append(*images[0])
        writer._file.close()
        with pytest.raises(PipelineError, match=r"features\.h5: not an intact store"):
            FeatureStore([tmp_path / "features.h5"])

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(PipelineError, match=r"none\.h5: not an intact store"):
            FeatureStore([tmp_path / "none.h5"])

    def test_another_hdf5_file_is_refused(self, tmp_path):
        with h5py.File(tmp_path / "other.h5", "w") as file:
            file["values"] = np.arange(3)
        with pytest.raises(PipelineError, match=r"other\.h5: not an intact store"):
            FeatureStore([tmp_path / "other.h5"])


class TestRepeated:
    """The column that SPP-net's stores have beside the others."""

    @pytest.fixture
    def marked(self, images):
        return [(name, replace(rows, repeated=np.arange(len(rows.boxes)) % 3 == 2)) for name, rows in images]

    def test_comes_back_row_by_row(self, tmp_path, marked):
        with FeatureWriter(tmp_path / "features.h5", NUM_FEATURES, CLASSES, {}, repeats=True) as writer:
            for name, rows in marked:
                writer.append(name, rows)
        store = FeatureStore([tmp_path / "features.h5"])
        for stored, (_, rows) in zip(store, marked, strict=True):
            assert_same(stored, rows)
            assert stored.repeated.tolist() == rows.repeated.tolist()
        assert store.annotations(3).repeated.tolist() == marked[3][1].repeated.tolist()
        assert store.read(3, np.array([1, 2, 5])).repeated.tolist() == [False, True, True]

    def test_is_none_in_other_stores(self, tmp_path, images, marked):
        store = FeatureStore([write(tmp_path / "features.h5", marked)])
        assert all(rows.repeated is None for rows in store)
        assert store.annotations(0).repeated is None


def after_relu(generator, count, num_features):
    """Random rows of which four fifths are zeros."""
    rows = random_rows(generator, count, num_features)
    return replace(rows, features=np.where(generator.random((count, num_features)) < 0.8, np.float16(0), np.abs(rows.features)))


class TestCompression:
    @pytest.mark.parametrize("compression", COMPRESSIONS)
    @pytest.mark.parametrize("num_features", [1, 7, 8, 1030])
    def test_round_trip_over_several_files(self, tmp_path, compression, num_features):
        generator = np.random.default_rng(num_features)
        images = [(f"{number}", after_relu(generator, count, num_features)) for number, count in enumerate((0, 300, 1, 0, 90))]
        images.append(("zeros", replace(images[4][1], features=np.zeros((90, num_features), np.float16))))
        store = FeatureStore([write(tmp_path / "a.h5", images[:2], num_features, compression),
                              write(tmp_path / "b.h5", images[2:], num_features, compression)])
        assert store.num_features == num_features
        for image, (_, rows) in enumerate(images):
            assert_same(store.read(image), rows)
        for rows in ([0], [89], [3, 4, 88], []):
            chosen = np.array(rows, np.int64)
            assert_same(store.read(4, chosen), images[4][1], rows)
            norms = np.linalg.norm(images[4][1].features[chosen].astype(np.float64), axis=1)
            assert store.norms(4, chosen).tolist() == norms.tolist()

    @pytest.mark.parametrize("compression", [GZIP, SPARSE])
    def test_every_float16_keeps_its_bits(self, tmp_path, compression):
        """Also -0.0, infinities and all that are no numbers."""
        values = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(256, 256)
        rows = replace(random_rows(np.random.default_rng(0), 256), features=values)
        restored = FeatureStore([write(tmp_path / "features.h5", [("a", rows)], 256, compression)]).read(0).features
        np.testing.assert_array_equal(restored.view(np.uint16), values.view(np.uint16))

    @pytest.mark.parametrize("compression", [GZIP, SPARSE])
    def test_features_behind_a_relu_take_a_quarter_of_float32(self, tmp_path, compression):
        rows = after_relu(np.random.default_rng(0), 200, 2048)
        with h5py.File(write(tmp_path / "features.h5", [("a", rows)], 2048, compression)) as file:
            names = ("features", "nonzero", "values", "value_ends")
            assert sum(file[name].id.get_storage_size() for name in names if name in file) <= 200 * 2048

    def test_layout_without_zeros_by_hand(self, tmp_path):
        features = np.array([[0, 1, 0, 2, 0, 0, 0, 3, 4], [0] * 9, [5, -0.0, 0, 0, 0, 0, 0, 0, 0]], np.float16)
        rows = replace(random_rows(np.random.default_rng(0), 3), features=features)
        with h5py.File(write(tmp_path / "features.h5", [("a", rows)], 9, SPARSE)) as file:
            assert file["nonzero"][:].tolist() == [[0b01010001, 0b10000000], [0, 0], [0b11000000, 0]]
            assert file["values"][:].tolist() == [1, 2, 3, 4, 5, -0.0]
            assert file["value_ends"][:].tolist() == [4, 4, 6]
            np.testing.assert_allclose(file["norm"][:], np.sqrt([30, 0, 25]))
            assert file.attrs["num_features"] == 9

    def test_two_writes_give_the_same_bytes(self, tmp_path, images):
        paths = [write(tmp_path / name, images, compression=SPARSE) for name in ("one.h5", "two.h5")]
        assert paths[0].read_bytes() == paths[1].read_bytes()

    @pytest.mark.parametrize(("name", "row", "value"), [
        ("nonzero", 3, 0), ("nonzero", 3, 127), ("value_ends", 2, 10**9), ("value_ends", 2, -1), ("value_ends", 17, 0),
    ])
    def test_bits_and_values_that_disagree_are_an_error(self, tmp_path, images, name, row, value):
        path = write(tmp_path / "features.h5", images, compression=SPARSE)
        with h5py.File(path, "r+") as file:
            file[name][row] = value
        store = FeatureStore([path])
        with pytest.raises(PipelineError, match=r"features\.h5: not an intact store \(.*disagree"):
            list(store)

    def test_another_number_of_features_is_an_error(self, tmp_path, images):
        path = write(tmp_path / "features.h5", images, compression=SPARSE)
        with h5py.File(path, "r+") as file:
            file.attrs["num_features"] = 10**12
        with pytest.raises(PipelineError, match=r"features\.h5: not an intact store \(1 bytes of bits a row"):
            FeatureStore([path])
