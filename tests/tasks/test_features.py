"""The stages that store features of regions: what `--feature-compression` means for their keys, and the disk they foretell."""

from types import SimpleNamespace

import pytest
import torch

from pipeline import feature_store
from pipeline.datasets.records import ImageShape
from pipeline.networks.backbones import make_backbone
from pipeline.networks.variants import NAMES
from tasks import ConvFeatures, ExtractFeatures, RegionProposals, SpatialPyramidFeatures
from tasks.engine import disk
from tasks.engine.errors import UserError
from tasks.features import crops, pyramid, stores
from tasks.networks import sizes


def test_the_compressions_are_those_of_the_store():
    assert stores.COMPRESSIONS == feature_store.COMPRESSIONS


@pytest.mark.parametrize("stage", [ExtractFeatures, SpatialPyramidFeatures])
def test_stores_from_before_there_was_compression_keep_their_keys(stage):
    none, gzip, usual = (stage(feature_compression=name).key_inputs() for name in ("none", "gzip", "sparse"))
    assert stage().key_inputs() == usual
    assert all("compression" not in part for part in (none["outside"], none["parameters"]))
    assert "feature_compression" not in none["parameters"]
    for inputs, name in ((gzip, "gzip"), (usual, "sparse")):
        assert inputs["outside"] == {**none["outside"], "compression": name}
        assert inputs["parameters"] == none["parameters"]


def test_the_pyramid_is_in_no_file_so_its_key_holds_no_compression():
    keys = [SpatialPyramidFeatures(spp_layer="pool5", feature_compression=name).key for name in stores.COMPRESSIONS]
    assert len(set(keys)) == 1


class TestDisk:
    """What the stages foretell from the index, with 100 proposals an image and three classes."""

    SHAPE = ImageShape(width=640, height=480, objects=4)

    @pytest.fixture(autouse=True)
    def splits(self, monkeypatch):
        for module in (crops, pyramid):
            monkeypatch.setattr(module, "load_split", lambda artefact: SimpleNamespace(classes=("a", "b", "c")))
        monkeypatch.setattr(RegionProposals, "boxes_per_image", 100)

    @pytest.mark.parametrize(("settings", "size"), [
        ({"backbone": "alexnet", "feature_compression": "none"}, 2 * 9216), ({"backbone": "alexnet"}, 9216),
        ({"backbone": "vgg16", "layer": "fc7"}, 4096), ({"backbone": "resnet50"}, 2 * 50176),
        ({"backbone": "resnet50+grid14"}, 2 * 4 * 50176), ({"backbone": "tiny"}, 2048),
    ])
    def test_features(self, settings, size):
        assert ExtractFeatures(**settings).image_bytes()(self.SHAPE) == 104 * (size + 45 + 12)

    def test_the_pyramid_itself_takes_only_its_columns(self):
        assert SpatialPyramidFeatures(spp_layer="pool5").image_bytes()(self.SHAPE) == 104 * 57
        assert SpatialPyramidFeatures().image_bytes()(self.SHAPE) == 104 * (256 + 57)

    def test_maps(self):
        """480 x 640 pixels at scales 240 and 480; at 960 the longer side would have 1280 pixels, 960 are allowed."""
        cells = (15 * 20, 30 * 40, 45 * 60)
        maps = ConvFeatures(backbone="tiny", map_scales=(240, 480, 960), map_longest_side=960, map_mirrored=True)
        assert maps.image_bytes()(self.SHAPE) == pytest.approx(2 * sum(cells) * 2 * 128)

    def test_a_run_on_a_full_disk_is_refused_before_its_first_shard(self, monkeypatch, tmp_path):
        shard, there = (SimpleNamespace(artefact=SimpleNamespace(exists=lambda is_there=is_there: is_there))
                        for is_there in (False, True))
        folder = tmp_path / "ExtractFeatures"
        stage = ExtractFeatures(backbone="alexnet", shard_size=1000, cache_dir=str(tmp_path))
        stage.artefact = SimpleNamespace(folder=folder / "0123")
        images = SimpleNamespace(shapes=lambda: [self.SHAPE] * 1800)
        monkeypatch.setattr(ExtractFeatures, "load_split", lambda self: SimpleNamespace(images=images))
        monkeypatch.setattr(ExtractFeatures, "complete", lambda self: False)
        monkeypatch.setattr(ExtractFeatures, "requires", lambda self: {})
        monkeypatch.setattr(ExtractFeatures, "shards", lambda self: [shard, there])
        monkeypatch.setattr(disk, "free_bytes", lambda folder: 0.9e9)
        assert stage.disk_bytes() == 1800 * 104 * (9216 + 57)  # of all, since the cache has no shard
        folder.mkdir()
        assert stage.disk_bytes() == 1000 * 104 * (9216 + 57)
        with pytest.raises(UserError, match=r"ExtractFeatures needs about 964 MB of disk .*; 900 MB are free"):
            next(stage.run())
        monkeypatch.setattr(disk, "free_bytes", lambda folder: 1e9)
        assert next(stage.run()) == [shard, there]


@pytest.mark.parametrize("name", NAMES)
def test_sizes_known_without_torch_are_those_of_the_networks(name):
    with torch.device("meta"):
        backbone = make_backbone(name)
    assert {layer: sizes.feature_size(name, layer) for layer in backbone.sizes} == backbone.sizes
    assert (sizes.map_channels(name), sizes.STRIDE) == (backbone.view.channels, backbone.view.stride)
