"""SPP-net's store reads as one that holds the pyramid, and its file holds none."""

import h5py
import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.feature_store import FeatureStore, FeatureWriter, ImageFeatures
from pipeline.networks.backbones import make_backbone
from pipeline.networks.map_store import MapStore, MapWriter
from pipeline.networks.whole_images import Scaling
from pipeline.rcnn.features import join_regions
from pipeline.spp_net.pooled_store import PooledStore
from pipeline.spp_net.spatial_pyramid import pyramid_features, pyramid_size, repeated_regions

SCALES, LEVELS, CLASSES = (48, 96), (1, 2), ("cat", "dog")
SIZES = [(60, 80), (90, 50), (60, 80)]  # height, width
ATTRIBUTES = {"backbone": "tiny", "layer": "pyramid", "levels": LEVELS, "scales": SCALES}


@pytest.fixture(scope="module")
def view():
    return make_backbone("tiny").view


@pytest.fixture
def written(tmp_path, make_record, view):
    """Files of maps, of a store without features, and of one with them: of the first two images, and of the third."""
    generator, channels, crop_size = np.random.default_rng(0), view.channels, make_backbone("tiny").crop_size
    files = {"maps": [], "pooled": [], "full": []}
    for numbers in (0, 1), (2,):
        paths = {name: tmp_path / f"{name}{numbers[0]}.h5" for name in files}
        with MapWriter(paths["maps"], channels, {}) as writer:
            for number in numbers:
                for scale in SCALES:
                    scaling = Scaling.of(*SIZES[number], scale, 1000)
                    cells = generator.normal(size=(scaling.size[0] // 16, scaling.size[1] // 16, channels)).astype(np.float16)
                    writer.append(str(number), scale, False, scaling, cells)
        sizes = [SIZES[number] for number in numbers]
        maps, size = MapStore([paths["maps"]], sizes), pyramid_size(channels, LEVELS)
        with (FeatureWriter(paths["pooled"], size, CLASSES, ATTRIBUTES, repeats=True, image_sizes=sizes) as pooled,
              FeatureWriter(paths["full"], size, CLASSES, ATTRIBUTES, repeats=True) as full):
            for place, number in enumerate(numbers):
                height, width = SIZES[number]
                corners = generator.uniform(0, 0.6, (7, 2)) * (width, height)
                boxes = np.concatenate([corners, corners + generator.uniform(2, 30, (7, 2))], axis=1)
                image = make_record(str(number), [[4, 4, 30, 30]], [1])
                regions, of_image = join_regions(image, boxes), [maps.read(place, scale) for scale in SCALES]
                rows = regions.annotations(2, repeated_regions(of_image, regions.boxes, crop_size, view))
                pooled.append(str(number), rows)
                features = pyramid_features(of_image, regions.boxes, crop_size, view, LEVELS)
                full.append(str(number), ImageFeatures(**vars(rows), features=features))
        for name, path in paths.items():
            files[name].append(path)
    return files


def test_reads_what_a_store_with_features_holds(written):
    pooled, full = PooledStore(written["pooled"], written["maps"]), FeatureStore(written["full"])
    assert (pooled.num_features, pooled.classes, pooled.image_ids) == (full.num_features, full.classes, full.image_ids)
    rows = [None, np.array([0, 3, 4]), np.array([], np.int64)]
    for image in range(3):
        for chosen in rows:
            mine, theirs = pooled.read(image, chosen), full.read(image, chosen)
            for name in vars(theirs):
                np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), err_msg=name)
            assert mine.features.dtype == np.float16
    assert [len(rows.features) for rows in pooled] == [8, 8, 8]


def test_the_file_has_boxes_and_no_features(written):
    with h5py.File(written["pooled"][0]) as file:
        assert "features" not in file
        assert file["boxes"].shape == (16, 4)
        assert file["image_size"][:].tolist() == [[60, 80], [90, 50]]
        assert file.attrs["num_features"] == pyramid_size(make_backbone("tiny").view.channels, LEVELS)


def test_maps_of_other_images_are_told(written):
    with pytest.raises(PipelineError, match="maps of 1 images, expected 2"):
        PooledStore(written["pooled"][:1], written["maps"][1:])


def test_rows_of_crops_have_as_many_features(make_record):
    regions = join_regions(make_record("a", [[0, 0, 9, 9]], [0]), np.array([[1, 1, 5, 5]]))
    assert regions.rows(np.zeros((2, 3), np.float16), 2).features.shape == (2, 3)
    with pytest.raises(AssertionError):
        regions.rows(np.zeros((3, 3), np.float16), 2)
