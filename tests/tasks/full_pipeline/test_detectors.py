"""Detectors exported after a whole run."""

import re
from collections import Counter

import numpy as np
import pytest

from pipeline.detection.detections import Detections, ImageDetections
from pipeline.detector import Detector

pytestmark = pytest.mark.slow


class TestDetectors:
    @pytest.mark.parametrize(("chain", "stage", "settings"), [
        ("rcnn", "DetectRCNN", {"region_features": "crops"}), ("spp-net", "DetectRCNN", {"region_features": "pyramid"}),
        ("fast-rcnn", "DetectFastRCNN", {}), ("faster-rcnn", "DetectFasterRCNN", {}),
    ])
    def test_exported_detector_finds_what_the_stage_does(self, cold, chain, stage, settings):
        project, _, manifests = cold
        before = project.manifests()
        output = project.run("ExportDetector", "--chain", chain)
        assert project.made(before) == Counter(ExportDetector=1)
        detector = Detector.load(project.folder / re.search(r"^detector: (\S+)/ \(", output, re.M)[1], threads=1)
        (folder,) = {name for name, made in manifests.items() if made["stage"] == stage and "shard 0" in made["inputs"]
                     and settings.items() <= made["settings"].items()}
        stored = Detections.load(project.cache / folder / "detections.npz")
        assert detector.classes == stored.classes
        images = next(project.cache.glob("GenerateDigits/*/digits")) / "JPEGImages"
        # R-CNN's stage fills batches with crops of several images.
        tolerance = {"rtol": 1e-3, "atol": 2e-2} if chain == "rcnn" else {"rtol": 0}
        for number, image_id in enumerate(stored.image_ids):
            found, expected = detector.detect(images / f"{image_id}.jpg"), ImageDetections.of(stored, number)
            for label in range(10):
                mine, theirs = found.labels == label, expected.labels == label
                np.testing.assert_allclose(found.scores[mine], expected.scores[theirs], **tolerance)
                np.testing.assert_allclose(found.boxes[mine], expected.boxes[theirs], **tolerance)
