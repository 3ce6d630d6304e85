"""Networks as ONNX files give the same scores in another program."""

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.files import onnx_files
from pipeline.networks.backbones import make_backbone
from pipeline.segmentation import onnx_export
from pipeline.segmentation.layout import Layout
from pipeline.segmentation.network import SegmentationNetwork
from pipeline.segmentation.onnx_export import write_onnx

SIZE = 70, 93


def network(kind, upsampling="transposed"):
    torch.manual_seed(0)
    model = SegmentationNetwork(make_backbone("tiny"), Layout("tiny", 5, kind, upsampling)).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)  # new scores begin at 0
    return model


@pytest.mark.parametrize(("kind", "upsampling"), [
    ("fcn8s", "transposed"),
    *(pytest.param("unpooling", way, marks=pytest.mark.exhaustive) for way in ("unpool", "nearest", "transposed")),
])
def test_scores_are_the_same(kind, upsampling, tmp_path):
    for package in onnx_files.PACKAGES:
        pytest.importorskip(package)
    runtime = pytest.importorskip("onnxruntime")
    model = network(kind, upsampling)
    write_onnx(model, SIZE, tmp_path / "network.onnx")
    images = torch.randn(1, 3, *SIZE)
    (scores,) = runtime.InferenceSession(tmp_path / "network.onnx").run(["scores"], {"images": images.numpy()})
    with torch.no_grad():
        expected = model(images).numpy()
    assert np.abs(expected).max() > 0.1
    assert np.allclose(scores, expected, atol=1e-4)
    content = (tmp_path / "network.onnx").read_bytes()
    assert b".py" not in content, "paths of this machine"


def test_patches_are_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "check_packages", lambda: None)
    with pytest.raises(PipelineError, match="patches cuts windows in a loop"):
        write_onnx(network("patches"), SIZE, tmp_path / "network.onnx")


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_files, "find_spec", lambda name: None)
    with pytest.raises(PipelineError, match=r"needs the package onnx and onnxscript; pip install -e '\.\[onnx\]'"):
        write_onnx(network("fcn32s"), SIZE, tmp_path / "network.onnx")
