"""Detectors exported after a whole run."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from pipeline.detection.detections import Detections, ImageDetections
from pipeline.detector import Detector

pytestmark = pytest.mark.slow


class TestDetectors:
    @pytest.mark.parametrize(("chain", "stage", "settings"), [
        ("rcnn", "DetectRCNN", {"region_features": "crops"}), ("faster-rcnn", "DetectFasterRCNN", {}),
        pytest.param("spp-net", "DetectRCNN", {"region_features": "pyramid"}, marks=pytest.mark.exhaustive),
        pytest.param("fast-rcnn", "DetectFastRCNN", {}, marks=pytest.mark.exhaustive),
    ])
    def test_exported_detector_finds_what_the_stage_does(self, cold, chain, stage, settings):
        project, _, manifests = cold
        before = project.manifests()
        output = project.run("ExportDetector", "--chain", chain, "--threshold-split", "none")
        assert project.made(before) == Counter(ExportDetector=1)
        assert "thresholds: none (--threshold-split)" in output
        detector = Detector.load(project.folder / re.search(r"^detector: (\S+)/ \(", output, re.M)[1], threads=1)
        (folder,) = {name for name, entry in manifests.items() if entry["stage"] == stage and "shard 0" in entry["inputs"]
                     and settings.items() <= entry["settings"].items()}
        stored = Detections.load(project.cache / folder / "detections.npz")
        assert detector.classes == stored.classes
        images = next(project.cache.glob("GenerateDigits/*/digits")) / "JPEGImages"
        # R-CNN's stage fills batches with crops of several images.
        tolerance = {"rtol": 1e-3, "atol": 2e-2} if chain == "rcnn" else {"rtol": 0}
        for number, image_id in enumerate(stored.image_ids):
            detections, expected = detector.detect(images / f"{image_id}.jpg"), ImageDetections.of(stored, number)
            for label in range(10):
                mine, theirs = detections.labels == label, expected.labels == label
                np.testing.assert_allclose(detections.scores[mine], expected.scores[theirs], **tolerance)
                np.testing.assert_allclose(detections.boxes[mine], expected.boxes[theirs], **tolerance)

    def test_thresholds_and_probabilities_are_in_its_folder(self, cold):
        """On `test`: its detections exist already, so nothing else is made."""
        project, _, _ = cold
        before = project.manifests()
        output = project.run("ExportDetector", "--chain", "rcnn", "--threshold-split", "test", "--calibrate", "true")
        assert project.made(before) == Counter(FindThresholds=1, ExportDetector=1)
        assert "thresholds: best F1 of each class on the split 'test'; the chain is also tested on it" in output
        folder = project.folder / re.search(r"^detector: (\S+)/ \(", output, re.M)[1]
        document = json.loads((folder / "detector.json").read_text())
        assert len(document["thresholds"]["scores"]) == len(document["calibration"]) == 10
        assert Detector.load(folder, threads=1).lowest_scores().shape == (10,)

    def test_the_split_that_is_not_tested_on_is_the_default(self, cold):
        project, _, _ = cold
        before = project.manifests()
        output = project.run("FindThresholds", "--chain", "faster-rcnn")
        assert "thresholds: best F1 of each class on the split 'val'\n" in output
        counts = project.made(before)
        assert counts.pop("FindThresholds") == counts.pop("IndexDataset") == 1
        assert set(counts) == {"DetectFasterRCNN"}
