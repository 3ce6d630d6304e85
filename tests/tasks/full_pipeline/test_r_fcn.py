"""The chain of R-FCN in a whole run."""

import re
from collections import Counter

import numpy as np
import pytest
from safetensors.numpy import load_file

from pipeline.detection.detections import Detections, ImageDetections
from pipeline.detector import Detector
from tests.tasks.conftest import Miniature
from tests.tasks.full_pipeline.runs import NOTHING, cache_tool, check_docs, inputs_of, read_summary, same, tensors_of, trunk_of

pytestmark = pytest.mark.slow
RUN = "FullPipeline", "--chains", "r-fcn", "--report", "true"
CHAIN = Counter(TrainRFCN=1, DetectRFCN=3, Evaluate=1, TimeDetection=1, Summarise=1, FullPipeline=1)


@pytest.fixture(scope="module")
def ran(shared_run, miniatures):
    """A project after a run of this chain alone."""
    folder, _ = shared_run("r-fcn", lambda folder: Miniature(folder).run(*RUN))
    project = miniatures(folder / "cache")
    yield project
    check_docs(project)


def test_what_is_made(ran):
    stages = Counter(manifest["stage"] for manifest in ran.manifests().values())
    assert stages == CHAIN + Counter(GenerateDigits=1, IndexDataset=2, PretrainClassifier=1)
    before = ran.manifests()
    assert "Nothing to do" in ran.run(*RUN)
    assert ran.made(before) == NOTHING


def test_summary(ran):
    chain = read_summary(ran)["chains"]["r-fcn"]
    assert len(chain["ap"]) == 10
    assert chain["published_map"] is None
    assert chain["train_seconds"] > 0
    assert chain["test_seconds_per_image"] > 0
    assert chain["proposal_seconds_per_image"] == 0


def test_report(ran):
    page = (ran.cache / "latest" / "report.html").read_text()
    assert "R-FCN" in page
    assert "TrainRFCN" in page


def test_show_of_every_artefact(ran):
    for stage in ("TrainRFCN", "DetectRFCN"):
        for folder in ran.cache.glob(f"{stage}/*"):
            shown = cache_tool(ran, "show", f"{stage}/{folder.name}")
            assert not re.search("cannot be read|another key|not belong|no longer", shown)


def test_exported_detector_finds_what_the_stage_does(ran):
    output = ran.run("ExportDetector", "--chain", "r-fcn")
    detector = Detector.load(ran.folder / re.search(r"^detector: (\S+)/ \(", output, re.M)[1], threads=1)
    stored = Detections.load(next(ran.cache.glob("DetectRFCN/*/detections.npz")))
    assert len(stored) > 0
    images = next(ran.cache.glob("GenerateDigits/*/digits")) / "JPEGImages"
    for number, image_id in enumerate(stored.image_ids):
        detections, expected = detector.detect(images / f"{image_id}.jpg"), ImageDetections.of(stored, number)
        order, expected_order = (np.lexsort((result.labels, -result.scores)) for result in (detections, expected))
        np.testing.assert_array_equal(detections.scores[order], expected.scores[expected_order])
        np.testing.assert_array_equal(detections.labels[order], expected.labels[expected_order])


@pytest.mark.exhaustive
def test_other_bins_train_it_again(ran):
    before = ran.manifests()
    ran.run("DetectRFCN", "--rfcn-k", "2")
    assert ran.made(before) == Counter(TrainRFCN=1, DetectRFCN=3)


@pytest.mark.exhaustive
def test_frozen_layers_train_from_cached_maps(ran):
    before = ran.manifests()
    ran.run("TrainRFCN", "--freeze", "all", "--rfcn-ohem", "false")
    assert ran.made(before) == Counter(TrainRFCN=1, ConvFeatures=3)
    assert "maps" in inputs_of(ran, before, "TrainRFCN")
    pretrained = trunk_of(tensors_of(ran, "PretrainClassifier", "backbone.safetensors"))
    (folder,) = [name for name, manifest in ran.manifests().items() if manifest["stage"] == "TrainRFCN" and name not in before]
    assert same(trunk_of(load_file(ran.cache / folder / "rfcn.safetensors")), pretrained)


@pytest.mark.exhaustive
def test_faster_rcnn_trains_on_hard_examples_on_request(ran):
    before = ran.manifests()
    ran.run("DetectFasterRCNN", "--faster-training", "joint", "--joint-ohem", "true")
    assert ran.made(before) == Counter(TrainFasterRCNN=1, DetectFasterRCNN=3)


@pytest.mark.exhaustive
def test_two_workers_make_the_same_bytes(ran, miniatures):
    again = miniatures()
    again.run(*RUN, "--workers", "2")
    first, second = (
        {name: digest for name, digest in project.digests().items() if name.startswith(("TrainRFCN", "DetectRFCN", "Evaluate"))}
        for project in (ran, again)
    )
    assert {name: first[name] for name in second} == second
