"""The stages of SPP-net: which layer its SVMs read, what is trained for it, and which keys that changes."""

from dataclasses import replace

import pytest

from pipeline.errors import PipelineError
from tasks import ConvFeatures, DetectRCNN, FineTuneSPP, SpatialPyramidFeatures, TrainBoxRegressors
from tasks.networks.defaults import DEFAULTS
from tasks.networks.finetune_pyramid import layer_of


@pytest.fixture(autouse=True)
def _apart(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


class TestLayer:
    @pytest.mark.parametrize(("backbone", "layer"), [
        ("tiny", "fc6"), ("alexnet", "fc7"), ("vgg16", "fc7"), ("squeezenet1_0", "pool5"),
    ])
    def test_is_the_last_fully_connected_one_or_the_pyramid(self, backbone, layer):
        assert layer_of(SpatialPyramidFeatures(backbone=backbone)) == layer
        assert layer_of(SpatialPyramidFeatures(backbone=backbone, spp_layer="pool5")) == "pool5"

    @pytest.mark.parametrize(("backbone", "layer"), [("tiny", "fc7"), ("squeezenet1_0", "fc6")])
    def test_one_that_is_not_there_is_told_before_anything_runs(self, backbone, layer):
        task = SpatialPyramidFeatures(backbone=backbone, spp_layer=layer)
        expected = f"--spp-layer {layer}: backbone {backbone} has only {', '.join(DEFAULTS[backbone].layers)}"
        with pytest.raises(PipelineError, match=expected):
            task.requires()

    def test_is_made_from_the_pyramid_by_the_fine_tuned_layers(self):
        task = SpatialPyramidFeatures()
        assert {name: source.stage for name, source in task.upstream().items()} == {
            "pool5": "SpatialPyramidFeatures", "network": "FineTuneSPP",
        }
        pyramid = task.upstream()["pool5"]
        assert {name: source.stage for name, source in pyramid.upstream().items()} == {
            "proposals": "RegionProposals", "maps": "ConvFeatures",
        }
        assert task.network_task().stage == "FineTuneSPP"
        assert pyramid.network_task().stage == "PretrainClassifier"

    def test_the_default_and_what_it_stands_for_have_one_key(self):
        assert SpatialPyramidFeatures().key == SpatialPyramidFeatures(spp_layer="fc6").key
        assert SpatialPyramidFeatures().key != SpatialPyramidFeatures(spp_layer="pool5").key
        deep = [SpatialPyramidFeatures(spp_layer="pool5", spp_iterations=count).key for count in (10, 20)]
        assert deep[0] == deep[1]  # the pyramid is the same whatever is trained on it


class TestFineTuning:
    @pytest.mark.parametrize(("settings", "maps"), [
        ({}, [(False, True)]), ({"dataset": "mine"}, [(False, True), (True, False)]),
        ({"dataset": "mine", "mirror": False}, [(False, True)]),
    ])
    def test_reads_mirrored_maps_where_it_may_mirror(self, settings, maps):
        sources = FineTuneSPP(**settings).requires()
        flags = [(task.map_mirrored, task.map_originals) for task in sources.values() if isinstance(task, ConvFeatures)]
        assert flags == maps

    def test_shares_the_maps_of_the_features(self):
        features = SpatialPyramidFeatures(split="train", spp_layer="pool5", dataset="mine")
        assert features.upstream()["maps"].task_id == FineTuneSPP(dataset="mine").requires()["maps"].task_id

    def test_keys_hold_what_defaults_lead_to(self, monkeypatch):
        before = FineTuneSPP()
        resolved = before.resolve()
        assert FineTuneSPP(
            spp_scales=resolved["scales"], spp_learning_rate=resolved["learning_rate"], spp_lr_step=resolved["lr_step"]
        ).key == before.key
        monkeypatch.setitem(DEFAULTS, "tiny", replace(DEFAULTS["tiny"], spp_rate=0.5))
        assert before.resolve()["learning_rate"] == 0.5
        assert FineTuneSPP(backbone="vgg16", spp_iterations=90000).resolve()["lr_step"] == 30000


class TestMaps:
    def test_the_default_is_in_no_key(self):
        usual = ConvFeatures()
        assert "map_originals" not in usual.key_inputs()["parameters"]
        assert "originals" not in usual.key_inputs()["outside"]
        assert ConvFeatures(map_originals=False).key_inputs()["outside"]["originals"] is False


class TestBoxRegressors:
    @pytest.mark.parametrize(("features", "chosen"), [("crops", (1000, 0.6)), ("pyramid", (4000, 0.5))])
    def test_have_the_settings_of_their_release(self, features, chosen):
        task = TrainBoxRegressors(region_features=features)
        assert task.chosen == chosen
        ridge, overlap = chosen
        assert TrainBoxRegressors(region_features=features, box_ridge=ridge, box_min_overlap=overlap).key == task.key
        assert TrainBoxRegressors(region_features=features, box_ridge=7).chosen == (7, overlap)
        parameters = task.key_inputs()["parameters"]
        assert (parameters["box_ridge"], parameters["box_min_overlap"]) == chosen

    def test_read_the_pyramid_whatever_the_svms_read(self):
        keys = {DetectRCNN(region_features="pyramid", spp_layer=layer).training_tasks()["regressors"].key
                for layer in ("auto", "fc6", "pool5")}
        assert len(keys) == 1


def test_detection_reads_the_pyramid_beside_the_layer_for_the_regressors():
    def sources(**settings):
        return set(DetectRCNN(region_features="pyramid", **settings).upstream())

    assert sources() == {"svms", "regressors", "features", "pool5"}
    assert sources(spp_layer="pool5") == {"svms", "regressors", "features"}
    assert sources(box_regression=False) == {"svms", "features"}
