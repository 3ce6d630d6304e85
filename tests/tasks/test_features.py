"""The stages that store features of regions: what `--feature-compression` means for their keys."""

import pytest

from pipeline import feature_store
from tasks import ExtractFeatures, SpatialPyramidFeatures
from tasks.features import stores


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
