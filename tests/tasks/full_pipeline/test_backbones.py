"""All chains with networks whose regions have convolutions in place of fully connected layers, from random weights."""

import json
import re

import pytest

from pipeline.detector import Detector
from tests.tasks.conftest import Miniature
from tests.tasks.full_pipeline.runs import check_docs, read_summary, same, tensors_of, trunk_of

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]
SETTINGS = (
    "--weights", "scratch", "--layer", "head", "--max-proposals", "10", "--pretrain-iterations", "1",
    "--pretrain-learning-rate", "0.001", "--finetune-iterations", "1", "--fast-scale", "160", "--spp-scales", "160",
    "--anchor-scales", "2,4", "--fast-regions", "16",
)
# Of the chains that have no detector to export.
OTHER_SETTINGS = (
    "--localise-iterations", "2", "--localise-side", "96", "--localise-batch", "4", "--pose-iterations", "2", "--pose-batch", "4",
    "--pose-side", "64", "--pose-joint-side", "64", "--single-digits", "false",  # so that all chains have the same first weights
)
CHAINS = ("rcnn", "spp-net", "fast-rcnn", "faster-rcnn", "sliding-window")
OTHERS = ("localisation", "pose")
BACKBONES = ("efficientnet_lite0", "mobilenet_v3_large", "resnet18+align")
# Steps of 8 windows in place of 128: each has 224 x 224 pixels.
SMALL_STEPS = """
import functools
from pipeline.rcnn import finetune
from tasks import *
for name in "FineTuneSampler", "JitteredObjectSampler":
    setattr(finetune, name, functools.partial(getattr(finetune, name), batch_size=8))
"""


class SmallSteps(Miniature):
    module = "small_steps"

    def __init__(self, folder, cache=None):
        super().__init__(folder, cache)
        (folder / "small_steps.py").write_text(SMALL_STEPS)


@pytest.fixture(scope="module", params=BACKBONES)
def run(shared_run, tmp_path_factory, request):
    """A project after a run of all chains with a backbone."""
    command = "FullPipeline", "--backbone", request.param, "--chains", ",".join(CHAINS + OTHERS), *SETTINGS, *OTHER_SETTINGS
    folder, _ = shared_run(request.param, lambda folder: SmallSteps(folder).run(*command))
    project = SmallSteps(tmp_path_factory.mktemp("backbone"), folder / "cache")
    project.backbone = request.param
    return project


def test_all_chains_have_results(run):
    assert read_summary(run)["chains"].keys() == {*CHAINS, *OTHERS}
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
    norms = {name for name in first if name.endswith(("scale", "offset"))}
    assert norms
    trunk = trunk_of(trained)
    frozen = {name for name in trunk if int(name.split(".")[1]) < 4} | (norms & trunk.keys())
    assert same({name: trunk[name] for name in frozen}, {name: first[name] for name in frozen})
    assert all(first[name].tobytes() == tuned[name].tobytes() for name in norms)
    assert all((trunk[name] != first[name]).any() for name in trunk.keys() - frozen if name.endswith("weight"))
    head = {name.removeprefix("backbone."): value for name, value in trained.items() if name.startswith("backbone.fc.head")}
    assert all((value != first[name]).any() for name, value in head.items() if name.endswith("weight"))


@pytest.mark.parametrize("chain", CHAINS)
def test_detectors_can_be_exported(run, chain):
    output = run.run("ExportDetector", "--chain", chain, "--backbone", run.backbone, *SETTINGS)
    folder = run.folder / re.search(r"^detector: (\S+)/ \(", output, re.M)[1]
    assert json.loads((folder / "detector.json").read_text())["settings"]["backbone"] == run.backbone
    image = next(run.cache.glob("GenerateDigits/*/digits/JPEGImages/*.jpg"))
    detections = Detector.load(folder, threads=1).detect(image)
    assert detections.boxes.shape == (len(detections), 4)
