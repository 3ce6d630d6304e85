"""R-CNN with the network's softmax in place of SVMs: the stages, what is refused, and the exported detector."""

import re

import numpy as np
import pytest

from pipeline.detection.detections import Detections, ImageDetections
from pipeline.detector import Detector
from pipeline.errors import PipelineError
from tasks import DetectRCNN, SoftmaxClassifier

SETTINGS = "--layer", "fc6", "--region-classifier", "softmax", "--box-regression", "false"


def test_the_default_is_in_no_key():
    assert "region_classifier" not in DetectRCNN().key_inputs()["parameters"]
    assert DetectRCNN().key_inputs()["outside"] == {}


def test_spp_net_keeps_its_svms():
    spp_net = DetectRCNN(region_features="pyramid", region_classifier="softmax")
    assert spp_net.key == DetectRCNN(region_features="pyramid").key


@pytest.mark.parametrize(("settings", "message"), [
    ({"finetune_iterations": 0, "layer": "fc6"}, "only a fine-tuned network has one; raise --finetune-iterations"),
    ({"layer": "pool5"}, "reads the last layer; found --layer pool5, expected fc6"),
])
def test_is_refused_without_a_classifier_on_the_layer(settings, message):
    with pytest.raises(PipelineError, match=message):
        DetectRCNN(region_classifier="softmax", **settings).requires()


def test_of_a_resnet_reads_its_head():
    tasks = DetectRCNN(region_classifier="softmax", backbone="resnet18", layer="head", weights="imagenet").requires()
    assert isinstance(tasks["svms"], SoftmaxClassifier)


def test_the_exported_detector_finds_what_the_stage_does(copy):
    before = copy.manifests()
    output = copy.run("ExportDetector", *SETTINGS, "--threshold-split", "test")
    counts = copy.made(before)
    assert counts.pop("ExtractFeatures") == 3  # of the test split: nothing else is trained
    assert counts == {"SoftmaxClassifier": 1, "DetectRCNN": 3, "FindThresholds": 1, "ExportDetector": 1}
    detector = Detector.load(copy.folder / re.search(r"^detector: (\S+)/ \(", output, re.M)[1], threads=1)
    (name,) = {name for name, manifest in copy.manifests().items() if manifest["stage"] == "DetectRCNN" and name not in before
               and "shard 0" in manifest["inputs"]}
    stored = Detections.load(copy.cache / name / "detections.npz")
    assert stored.score.min() > 0
    assert stored.score.max() < 1
    image = next(copy.cache.glob("GenerateDigits/*/digits")) / "JPEGImages" / f"{stored.image_ids[0]}.jpg"
    detections, expected = detector.detect(image), ImageDetections.of(stored, 0)
    assert len(detections.scores) == len(expected.scores) > 0
    np.testing.assert_allclose(np.sort(detections.scores), np.sort(expected.scores), rtol=1e-2, atol=1e-3)
