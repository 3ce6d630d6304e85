"""What a changed setting makes again."""

import re
from collections import Counter

import pytest
from safetensors.numpy import load_file

from tests.tasks.full_pipeline.runs import BOTH, DETECTION, inputs_of

pytestmark = pytest.mark.slow


class TestSettings:
    def test_cost_of_the_svms_redoes_them_and_what_follows(self, project):
        before = project.manifests()
        output = project.run("FullPipeline", "--svm-c", "0.01")
        assert project.made(before) == BOTH + Counter(TrainSVMs=2)
        assert re.search(r"^ExtractFeatures .* from the cache$", output, re.M)

    @pytest.mark.exhaustive
    def test_deeper_layer(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--layer", "fc6")
        assert project.made(before) == DETECTION + Counter(ExtractFeatures=6, TrainSVMs=1)
        inputs = inputs_of(project, before, "DetectRCNN")
        assert inputs.keys() == {"index", "svms", "regressors", "features", "pool5"}
        assert inputs["pool5"]["key"][:12] in {name.split("/")[1] for name in before}
        assert inputs["features"]["key"] != inputs["pool5"]["key"]
        regressors = project.manifests()["TrainBoxRegressors/" + inputs["regressors"]["key"][:12]]
        read = project.manifests()["ExtractFeatures/" + regressors["inputs"]["features"]["key"][:12]]
        assert read["parameters"]["layer"] == "pool5"

    def test_without_box_regression(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--box-regression", "false")
        assert project.made(before) == BOTH
        assert inputs_of(project, before, "DetectRCNN").keys() == {"index", "svms", "features"}
        assert "regressors" not in inputs_of(project, before, "TimeDetection")

    @pytest.mark.exhaustive
    def test_without_fine_tuning(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--finetune-iterations", "0")
        assert project.made(before) == DETECTION + Counter(ExtractFeatures=6, TrainSVMs=1, TrainBoxRegressors=1)
        assert inputs_of(project, before, "ExtractFeatures")["network"]["stage"] == "PretrainClassifier"

    @pytest.mark.exhaustive
    def test_forced_stage_comes_out_the_same(self, project):
        before = project.manifests()
        digests = project.digests()
        project.run("FullPipeline", "--force", "TrainSVMs")
        assert project.made(before) == Counter(TrainSVMs=2)
        assert project.digests() == digests

    def test_unknown_chain(self, project):
        output = project.run("FullPipeline", "--chains", "nonsense", status=40)
        names = "rcnn, spp-net, fast-rcnn, faster-rcnn, r-fcn, sliding-window, ssd, retinanet, mask-rcnn, localisation, pose, " \
                "patches, fcn32s, fcn16s, fcn8s, unpooling"
        assert output == f"ERROR: --chains: found 'nonsense', expected one or more of {names}\n"

    @pytest.mark.exhaustive
    def test_frozen_layers_train_from_cached_maps(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--freeze", "all", "--chains", "fast-rcnn")
        redone = Counter(TrainFastRCNN=1, DetectFastRCNN=3, TimeDetection=1, Evaluate=1, Summarise=1)
        assert project.made(before) - Counter(ConvFeatures=3) == redone
        assert "maps" in inputs_of(project, before, "TrainFastRCNN")
        layers = [
            load_file(next(project.cache.glob(f"{stage}/{key}/{name}"))) for stage, key, name in (
                ("PretrainClassifier", "*", "backbone.safetensors"),
                ("TrainFastRCNN", *{name.split("/")[1] for name in project.manifests().keys() - before if "Train" in name},
                 "fast_rcnn.safetensors"),
            )
        ]
        trunk = [name for name in layers[0] if name.startswith("trunk")]
        assert all((layers[0][name] == layers[1][f"backbone.{name}"]).all() for name in trunk)
        assert (layers[0]["fc.fc6.weight"] != layers[1]["backbone.fc.fc6.weight"]).any()

    @pytest.mark.exhaustive
    def test_compressed_layers(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--svd-fc6", "16")
        redone = Counter(CompressFastRCNN=1, DetectFastRCNN=3, TimeDetection=1, Evaluate=1, Summarise=1)
        assert project.made(before) == redone
        (figures,) = [m["figures"] for m in project.manifests().values() if m["stage"] == "CompressFastRCNN"]
        assert figures["parameters_before"] - figures["parameters"] == 2048 * 256 - 16 * (2048 + 256)
