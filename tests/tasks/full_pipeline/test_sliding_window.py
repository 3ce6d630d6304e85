"""The chain of sliding windows in a whole run."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from pipeline.detection.detections import Detections, ImageDetections
from pipeline.detector import Detector
from pipeline.files.npz import load_arrays
from tests.tasks.conftest import Miniature
from tests.tasks.full_pipeline.runs import NOTHING, cache_tool, check_docs, check_two_workers, read_summary

pytestmark = pytest.mark.slow
RUN = "FullPipeline", "--chains", "sliding-window", "--report", "true", "--window-min-score", "0.03"


@pytest.fixture(scope="module")
def ran(shared_run, miniatures):
    """A project after a run of this chain alone, and what that printed."""
    folder, output = shared_run("sliding-window", lambda folder: Miniature(folder).run(*RUN))
    project = miniatures(folder / "cache")
    yield project, output
    check_docs(project)


def test_what_is_made(ran):
    project, output = ran
    stages = Counter(manifest["stage"] for manifest in project.manifests().values())
    assert stages == Counter(
        GenerateDigits=1, IndexDataset=2, PretrainClassifier=1, TrainWindows=1, DetectSlidingWindow=3, Evaluate=1,
        TimeDetection=1, WindowCosts=1, Summarise=1, FullPipeline=1,
    )
    assert re.search(r"^On 1 of them: naive [\d.]+ s an image, dense [\d.]+ s", output, re.M)
    before = project.manifests()
    assert "Nothing to do" in project.run(*RUN)
    assert project.made(before) == NOTHING


def test_summary(ran):
    chain = read_summary(ran[0])["chains"]["sliding-window"]
    low, high = chain["interval_95"]["naive_over_dense"]
    assert low <= chain["naive_over_dense"] <= high
    assert chain["naive_over_dense"] > 20
    assert chain["naive_seconds"] > chain["dense_seconds"] > 0
    assert chain["largest_difference"] < 1e-5
    assert chain["interval_95"].keys() >= {"mean", "zero"}
    assert chain["train_seconds"] > 0
    assert chain["test_seconds_per_image"] > 0
    assert chain["proposal_seconds_per_image"] == 0


def test_report(ran):
    page = (ran[0].cache / "latest" / "report.html").read_text()
    assert '<section id="windows">' in page
    assert page.count("Score map at scale") == 2
    assert "Sliding windows</h3>" in page


def test_costs(ran):
    folder = next(ran[0].cache.glob("WindowCosts/*"))
    costs, maps = json.loads((folder / "costs.json").read_text()), load_arrays(folder / "maps.npz")
    assert costs["unpadded"]
    assert [row["scale"] for row in costs["by_scale"]] == [0.6, 1]
    for number, row in enumerate(costs["by_scale"]):
        probabilities = maps[f"scale_{number}"]
        assert probabilities.shape[0] == 11
        assert probabilities[0].size == row["windows"]  # all images are of one size
        np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)


def test_show_of_every_artefact(ran):
    project = ran[0]
    for stage in ("TrainWindows", "DetectSlidingWindow", "WindowCosts"):
        for folder in project.cache.glob(f"{stage}/*"):
            shown = cache_tool(project, "show", f"{stage}/{folder.name}")
            assert not re.search("cannot be read|another key|not belong|no longer", shown)


def test_exported_detector_finds_what_the_stage_does(ran):
    project, _ = ran
    output = project.run("ExportDetector", "--chain", "sliding-window", "--window-min-score", "0.03")
    detector = Detector.load(project.folder / re.search(r"^detector: (\S+)/ \(", output, re.M)[1], threads=1)
    stored = Detections.load(next(project.cache.glob("DetectSlidingWindow/*/detections.npz")))
    assert len(stored) > 0
    images = next(project.cache.glob("GenerateDigits/*/digits")) / "JPEGImages"
    for number, image_id in enumerate(stored.image_ids):
        detections, expected = detector.detect(images / f"{image_id}.jpg"), ImageDetections.of(stored, number)
        np.testing.assert_array_equal(detections.scores, expected.scores)
        np.testing.assert_array_equal(detections.boxes, expected.boxes)


@pytest.mark.exhaustive
def test_two_workers_make_the_same_bytes(ran, miniatures):
    again = miniatures()
    for command in (("Evaluate", "--chain", "sliding-window"), ("WindowCosts",)):
        check_two_workers(ran[0], again, *command, "--window-min-score", "0.03")
