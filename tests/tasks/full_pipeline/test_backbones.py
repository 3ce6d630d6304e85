"""All chains with a network whose regions have convolutions in place of fully connected layers."""

import json
import re

import pytest

from pipeline.detector import Detector
from tests.tasks.full_pipeline.runs import check_docs, read_summary, same, tensors_of, trunk_of

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]
SETTINGS = (
    "--backbone", "efficientnet_lite0", "--weights", "scratch", "--layer", "head", "--max-proposals", "20",
    "--pretrain-iterations", "1", "--pretrain-learning-rate", "0.001", "--finetune-iterations", "1", "--fast-scale", "160",
    "--spp-scales", "160", "--anchor-scales", "2,4", "--fast-regions", "16",
)
CHAINS = ("rcnn", "spp-net", "fast-rcnn", "faster-rcnn")


@pytest.fixture(scope="module")
def run(miniatures):
    project = miniatures()
    project.run("FullPipeline", *SETTINGS)
    return project


def test_all_chains_have_results(run):
    assert read_summary(run)["chains"].keys() == set(CHAINS)
    check_docs(run)


def test_svms_read_the_head_and_regressors_pool5(run):
    layers = {
        manifest["settings"]["layer"] for manifest in run.manifests().values() if manifest["stage"] == "ExtractFeatures"
    }
    assert layers == {"head", "pool5"}


def test_training_changes_all_but_the_frozen_blocks(run):
    first = tensors_of(run, "PretrainClassifier", "backbone.safetensors")
    tuned = tensors_of(run, "FineTune", "backbone.safetensors")
    trained = tensors_of(run, "TrainFastRCNN", "fast_rcnn.safetensors")
    assert all((first[name] != tuned[name]).any() for name in first if name.endswith("weight"))
    trunk = trunk_of(trained)
    frozen = {name for name in trunk if int(name.split(".")[1]) < 4}
    assert same({name: trunk[name] for name in frozen}, {name: first[name] for name in frozen})
    assert all((trunk[name] != first[name]).any() for name in trunk.keys() - frozen if name.endswith("weight"))
    assert (trained["backbone.fc.head.last.weight"] != first["fc.head.last.weight"]).any()


@pytest.mark.parametrize("chain", CHAINS)
def test_detectors_can_be_exported(run, chain):
    output = run.run("ExportDetector", "--chain", chain, *SETTINGS)
    folder = run.folder / re.search(r"^detector: (\S+)/ \(", output, re.M)[1]
    assert json.loads((folder / "detector.json").read_text())["settings"]["backbone"] == "efficientnet_lite0"
    image = next(run.cache.glob("GenerateDigits/*/digits/JPEGImages/*.jpg"))
    found = Detector.load(folder, threads=1).detect(image)
    assert found.boxes.shape == (len(found), 4)
