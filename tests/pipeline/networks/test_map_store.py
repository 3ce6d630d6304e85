"""Files of conv maps: layout as described, round trips over several files, and damage that names the file."""

import hashlib

import h5py
import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.networks.map_store import COLUMNS, MapStore, MapWriter
from pipeline.networks.whole_images import Scaling

CHANNELS = 3
SIZES = [(60, 80), (90, 40), (33, 50)]  # height and width of images
SCALES = (48, 64)


def random_cells(generator, height, width, channels=CHANNELS):
    return generator.normal(size=(height, width, channels)).astype(np.float16)


def make_maps(numbers=(0, 1, 2), scales=SCALES, mirrors=(False, True), seed=0):
    """(image id, scale, mirrored, scaling, cells) of each map, image by image; all maps differ, in size too."""
    generator = np.random.default_rng([seed, *numbers])
    return [
        (f"zèbre {number}", scale, mirrored, Scaling.of(*SIZES[number], scale, 1000),
         random_cells(generator, scale // 16 + number, 2 + scale // 16 + mirrored))
        for number in numbers for mirrored in mirrors for scale in scales
    ]


def write(path, maps, channels=CHANNELS, **attributes):
    writer = MapWriter(path, channels, attributes)
    for written in maps:
        writer.append(*written)
    writer.close()
    return path


def flip(path, place, bit=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def assert_same(stored, expected):
    *_, scaling, cells = expected
    assert stored.cells.dtype == np.float16
    np.testing.assert_array_equal(stored.cells, cells)
    assert stored.scaling == scaling
    assert all(type(side) is int for side in stored.scaling.size)


class TestLayout:
    def test_is_what_the_description_says(self, tmp_path):
        maps = make_maps([0, 1])
        with h5py.File(write(tmp_path / "maps.h5", maps, backbone="tiny", precision="float32")) as file:
            cells = [cells.reshape(-1, CHANNELS) for *_, cells in maps]
            assert {name: (data.shape, data.dtype) for name, data in file.items() if name != "image_ids"} == {
                "cells": ((sum(map(len, cells)), CHANNELS), np.float16), "offsets": ((9,), np.int64),
                "map_size": ((8, 2), np.int32), "scaled_size": ((8, 2), np.int32), "image_index": ((8,), np.int32),
                "scale": ((8,), np.int32), "mirrored": ((8,), np.bool_),
            }
            np.testing.assert_array_equal(file["cells"][:], np.concatenate(cells))
            assert file["offsets"][:].tolist() == [0, *np.cumsum(list(map(len, cells)))]
            assert file["map_size"][:].tolist() == [list(written[4].shape[:2]) for written in maps]
            assert file["scaled_size"][:4].tolist() == [[48, 64], [64, 85], [48, 64], [64, 85]]
            assert file["image_index"][:].tolist() == [0] * 4 + [1] * 4
            assert file["scale"][:].tolist() == [48, 64] * 4
            assert file["mirrored"][:].tolist() == [False, False, True, True] * 2
            assert file["image_ids"].asstr()[:].tolist() == ["zèbre 0", "zèbre 1"]
            assert dict(file.attrs) == {"backbone": "tiny", "precision": "float32"}
            assert file["cells"].fletcher32

    def test_two_writes_give_the_same_bytes(self, tmp_path):
        paths = [write(tmp_path / name, make_maps(), backbone="tiny") for name in ("one.h5", "two.h5")]
        assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}) == 1

    def test_cells_lie_in_chunks_of_about_a_megabyte(self, tmp_path):
        generator = np.random.default_rng(0)
        maps = [("a", scale, False, Scaling.of(60, 80, 48, 99), random_cells(generator, 40, 51, 256)) for scale in (1, 2)]
        path = write(tmp_path / "maps.h5", maps, 256)
        with h5py.File(path) as file:
            assert file["cells"].chunks == (2048, 256)
        store = MapStore([path], [(60, 80)])
        for written in maps:
            assert_same(store.read(0, written[1]), written)


class TestRoundTrip:
    def test_several_files_are_read_as_one(self, tmp_path):
        """In any order; files hold one image or two, at each scale, mirrored or not."""
        parts = make_maps([0, 1]), make_maps([2])
        store = MapStore((write(tmp_path / f"{number}.h5", part) for number, part in enumerate(parts)), iter(SIZES))
        for written in reversed([*parts[0], *parts[1]]):
            assert_same(store.read(int(written[0][-1]), written[1], mirrored=written[2]), written)
        assert_same(store.read(2, 64), parts[1][1])

    def test_more_files_than_are_held_open(self, tmp_path):
        maps = [make_maps([number % 3], [48], [False], seed=number) for number in range(20)]
        paths = [write(tmp_path / f"{number}.h5", part) for number, part in enumerate(maps)]
        store = MapStore(paths, [SIZES[number % 3] for number in range(20)])
        for _ in range(2):
            for number, (written,) in enumerate(maps):
                assert_same(store.read(number, 48), written)

    def test_every_float16_keeps_its_bits(self, tmp_path):
        cells = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(256, 256, 1)
        path = write(tmp_path / "maps.h5", [("a", 48, False, Scaling.of(60, 80, 48, 99), cells)], 1)
        restored = MapStore([path], SIZES[:1]).read(0, 48).cells
        np.testing.assert_array_equal(restored.view(np.uint16), cells.view(np.uint16))

    def test_maps_that_are_no_rows_in_memory(self, tmp_path):
        (written,) = make_maps([0], [48], [False])
        path = write(tmp_path / "maps.h5", [(*written[:4], np.asfortranarray(written[4]))])
        assert_same(MapStore([path], SIZES[:1]).read(0, 48), written)


class TestMissing:
    @pytest.mark.parametrize("asked", [(0, 50, False), (0, 48, True), (2, 48, False), (-1, 48, False)])
    def test_a_map_that_is_not_there(self, tmp_path, asked):
        path = write(tmp_path / "maps.h5", make_maps([0, 1], mirrors=[False]))
        with pytest.raises(PipelineError) as caught:
            MapStore([path], SIZES[:2]).read(*asked)
        assert str(caught.value) == f"{path}: no map of image {asked[0]} at scale {asked[1]}, mirrored: {asked[2]}"

    @pytest.mark.parametrize("count", [0, 2, 4])
    def test_maps_of_other_images_than_expected(self, tmp_path, count):
        paths = [write(tmp_path / f"{name}.h5", make_maps(numbers)) for name, numbers in (("a", [0, 1]), ("b", [2]))]
        with pytest.raises(PipelineError, match=rf"a\.h5: maps of 3 images, expected {count}; make them anew"):
            MapStore(paths, [(60, 80)] * count)


class TestDamage:
    @pytest.mark.parametrize("bit", [0, 7])
    @pytest.mark.parametrize("name", ["cells", "offsets", *COLUMNS])
    def test_one_flipped_bit_is_an_error_that_names_the_file(self, tmp_path, name, bit):
        path = write(tmp_path / "maps.h5", make_maps())
        with h5py.File(path) as file:
            place = file[name].id.get_chunk_info(0).byte_offset
        flip(path, place, bit)
        with pytest.raises(PipelineError) as caught:
            MapStore([path], SIZES).read(0, 48)
        assert str(caught.value).startswith(f"{path}: not an intact ")
        assert str(caught.value).endswith(")")

    def test_the_intact_files_are_not_blamed(self, tmp_path):
        paths = [write(tmp_path / name, make_maps(numbers)) for name, numbers in (("a.h5", [0, 1]), ("b.h5", [2]))]
        with h5py.File(paths[1]) as file:
            place = file["cells"].id.get_chunk_info(0).byte_offset
        flip(paths[1], place)
        store = MapStore(paths, SIZES)
        assert_same(store.read(0, 48), make_maps([0, 1])[0])
        with pytest.raises(PipelineError, match=r"b\.h5: not an intact"):
            store.read(2, 48)

    @pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
    def test_a_truncated_file_is_refused_at_once(self, tmp_path, share):
        path = write(tmp_path / "maps.h5", make_maps())
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(PipelineError, match=r"maps\.h5: not an intact"):
            MapStore([path], SIZES)

    @pytest.mark.parametrize("name", ["cells", "offsets", "image_ids", *COLUMNS])
    def test_a_missing_data_set_is_an_error(self, tmp_path, name):
        path = write(tmp_path / "maps.h5", make_maps())
        with h5py.File(path, "r+") as file:
            del file[name]
        with pytest.raises(PipelineError, match=r"maps\.h5: not an intact"):
            MapStore([path], SIZES).read(0, 48)

    def test_a_file_that_was_never_completed_is_refused(self, tmp_path):
        writer = MapWriter(tmp_path / "maps.h5", CHANNELS, {})
        writer.append(*make_maps()[0])
        writer._file.close()
        with pytest.raises(PipelineError, match=r"maps\.h5: not an intact"):
            MapStore([tmp_path / "maps.h5"], SIZES[:1])

    @pytest.mark.parametrize("content", [b"", b"no HDF5 at all" * 100, None])
    def test_another_file_or_none_is_refused(self, tmp_path, content):
        path = tmp_path / "other.h5"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(PipelineError, match=r"other\.h5: not an intact"):
            MapStore([path], SIZES)
