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
    """Rectangles on noise: on one colour all cells would have equal scores, and rounding would decide."""
    generator = np.random.default_rng(height)
    image = generator.integers(60, 120, (height, width, 3)).astype(np.uint8)
    for y, x, side in zip(generator.integers(0, height, 12), generator.integers(0, width, 12), generator.integers(5, 40, 12)):
        image[y : y + side, x : x + side] = generator.integers(0, 256, 3)
    return image


def tell_apart(folder):
    """Random scores of the first network are almost equal, so that rounding would decide. Enlarges what they are made from."""
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        for name in tensors:
            if name in ("scores.weight", "deltas.weight"):
                tensors[name] *= 30
        save_file(tensors, path)


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
    detector, other = Detector.load(folder, threads=1), example.OnnxDetector(folder)
    for size in SIZES:
        pixels = photograph(*size)
        expected = detector.detect(pixels)
        boxes, scores, labels, masks = other.detect(pixels)
        assert len(expected) > 5
        np.testing.assert_array_equal(labels, expected.labels)
        np.testing.assert_allclose(scores, expected.scores, atol=2e-5)
        np.testing.assert_allclose(boxes, expected.boxes, atol=2e-2)
        if chain == "mask-rcnn":
            assert masks.shape == expected.masks.shape
            assert np.abs(masks.astype(int) - expected.masks).max() <= 1
    for path in folder.glob("*.onnx"):
        assert b".py" not in path.read_bytes(), "paths of this machine"
    assert json.loads((folder / "onnx.json").read_text())["opset"] == onnx_files.OPSET


def test_other_chains_are_refused(monkeypatch):
    monkeypatch.setattr(detector_onnx, "check_packages", lambda: None)
    for chain in "faster-rcnn", "ssd", "torchvision:fcos_resnet50_fpn":
        check_exportable(chain)
    for chain in "rcnn", "r-fcn":
        with pytest.raises(PipelineError, match=rf"--format onnx: {chain} cannot be exported; give --chain faster-rcnn, ssd"):
            check_exportable(chain)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(onnx_files, "find_spec", lambda name: None)
    with pytest.raises(PipelineError, match=r"^ONNX needs the package onnx and onnxscript; pip install -e '\.\[onnx\]'$"):
        check_exportable("faster-rcnn")
