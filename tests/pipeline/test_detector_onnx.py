"""Detectors as ONNX files: onnxruntime and NumPy (examples/detect_onnx.py) find what our detector finds."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from pipeline import detector_onnx
from pipeline.detector import Detector
from pipeline.detector_onnx import check_exportable, write_onnx
from pipeline.errors import PipelineError
from pipeline.files import onnx_files

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = (90, 120), (113, 70), (20, 330)  # the last one's longer side limits its scale, and SSD's kind gives it a border
TOLERANCE = 0.02  # pixels, and of scores a thousandth of it
ON_THE_EDGE = 0.02  # share of detections that may differ: a score or an overlap lies within rounding of a limit
EXAMPLE = Path(__file__).parents[2] / "examples" / "detect_onnx.py"


@pytest.fixture(scope="module")
def example():
    """The module examples/detect_onnx.py."""
    for package in (*onnx_files.PACKAGES, "onnxruntime"):
        pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location("detect_onnx", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def photograph(height, width):
    """Rectangles in noise: on one colour cells would have equal scores, and rounding would decide."""
    generator = np.random.default_rng(height)
    image = np.full((height, width, 3), 90)
    for y, x, side in zip(generator.integers(0, height, 12), generator.integers(0, width, 12), generator.integers(5, 40, 12)):
        image[y : y + side, x : x + side] = generator.integers(0, 256, 3)
    return (image + generator.integers(-40, 40, image.shape)).clip(0, 255).astype(np.uint8)


def tell_apart(folder):
    """Enlarges the random weights: the scores would be almost equal, and rounding would decide.

    No limit cuts between detections of almost equal scores.
    """
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        for name in tensors:
            if name in ("scores.weight", "deltas.weight"):
                tensors[name] *= 30
        save_file(tensors, path)
    document = json.loads((folder / "detector.json").read_text())
    document["settings"] |= {"max_per_image": 0, "max_detections": 0}
    (folder / "detector.json").write_text(json.dumps(document))


def nearest(first, second):
    """For each detection (boxes, scores, labels) of `first` the number of the nearest of its class in `second`, and its distance:
    of corners in pixels or of scores in thousandths, whichever is more."""
    (boxes, scores, labels), (their_boxes, their_scores, their_labels) = first, second
    distances = np.maximum(np.abs(boxes[:, None] - their_boxes).max(axis=2), 1000 * np.abs(scores[:, None] - their_scores))
    distances[labels[:, None] != their_labels] = np.inf
    return distances.argmin(axis=1), distances.min(axis=1)


@pytest.mark.parametrize(("chain", "backbone"), [
    ("faster-rcnn", "tiny"), ("mask-rcnn", "tiny"),
    *(pytest.param("faster-rcnn", name, marks=pytest.mark.exhaustive)
      for name in ("tiny+average", "tiny+align", "efficientnet_lite0")),
    *(pytest.param(chain, "tiny", marks=pytest.mark.exhaustive) for chain in ("ssd", "retinanet")),
])
def test_finds_the_same(example, write_detector, tmp_path, chain, backbone):
    folder = write_detector(tmp_path / "detector", chain, backbone)
    tell_apart(folder)
    write_onnx(folder)
    detector, onnx_detector = Detector.load(folder, threads=1), example.OnnxDetector(folder)
    for size in SIZES:
        pixels = photograph(*size)
        ours = detector.detect(pixels)
        expected = ours.boxes, ours.scores, ours.labels
        *arrays, masks = onnx_detector.detect(pixels)
        assert len(ours) > 5
        assert (np.diff(arrays[1]) <= 0).all()
        for first, second in (expected, arrays), (arrays, expected):
            assert np.mean(nearest(first, second)[1] > TOLERANCE) <= ON_THE_EDGE
        if chain == "mask-rcnn":
            order, distances = nearest(expected, arrays)
            same = distances <= TOLERANCE
            assert np.abs(masks[order].astype(int) - ours.masks)[same].max() <= 1
    for path in folder.glob("*.onnx"):
        assert b".py" not in path.read_bytes(), "paths of this machine"
    assert json.loads((folder / "onnx.json").read_text())["opset"] == onnx_files.OPSET


def test_other_chains_are_refused(monkeypatch):
    monkeypatch.setattr(detector_onnx, "check_packages", lambda: None)
    for chain in "faster-rcnn", "ssd", "torchvision:fcos_resnet50_fpn":
        check_exportable(chain, {})
    for chain in "rcnn", "r-fcn":
        with pytest.raises(PipelineError, match=rf"--format onnx: {chain} cannot be exported; give --chain faster-rcnn, ssd"):
            check_exportable(chain, {})
    with pytest.raises(PipelineError, match=r"an image is looked at once"):
        check_exportable("faster-rcnn", {"views": {"scales": [400, 600], "longest": 1000, "mirror": False}})


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(onnx_files, "find_spec", lambda name: None)
    with pytest.raises(PipelineError, match=r"^ONNX needs the package onnx and onnxscript; pip install -e '\.\[onnx\]'$"):
        check_exportable("faster-rcnn", {})
