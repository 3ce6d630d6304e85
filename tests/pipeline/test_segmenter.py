"""A segmenter's folder, and segmenters in Python: what is refused, by name."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import PipelineError
from pipeline.networks.backbones import make_backbone
from pipeline.networks.weights import save_tensors
from pipeline.segmentation.layout import Layout
from pipeline.segmentation.network import SegmentationNetwork
from pipeline.segmenter import Segmenter

NAMES = ["background", "cat", "dog"]
LAYOUT = Layout("tiny", 3, "fcn32s")
PIXELS = np.random.default_rng(0).integers(0, 256, (41, 30, 3), np.uint8)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    torch.manual_seed(0)
    model = SegmentationNetwork(make_backbone("tiny"), LAYOUT)
    torch.nn.init.normal_(model.method.layers.scores["32"].weight)
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    save_tensors(model, path)
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path, tensors):
    (tmp_path / "network.safetensors").write_bytes(tensors)
    write(tmp_path)
    return tmp_path


def write(folder, **changes):
    settings = {"names": NAMES, "layout": asdict(LAYOUT), "precision": "float32", "method": "fcn32s", **changes}
    (folder / "segmenter.json").write_text(json.dumps(settings))


def test_labels_are_of_the_image_s_size_and_the_same_for_a_file_and_its_pixels(folder, tmp_path):
    segmenter = Segmenter.load(folder)
    assert segmenter.names == tuple(NAMES)
    labels = segmenter.segment(PIXELS)
    assert labels.shape == (41, 30)
    assert labels.dtype == np.uint8
    assert labels.max() < 3
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    assert np.array_equal(segmenter.segment(tmp_path / "image.png"), labels)
    assert np.array_equal(segmenter.segment(Image.fromarray(PIXELS)), labels)
    assert segmenter.draw(PIXELS, labels).size == (30, 41)
    assert segmenter.segment(PIXELS[:1, :1]).shape == (1, 1)


@pytest.mark.parametrize(("changes", "fault"), [
    ({"names": ["cat", "cat", "dog"]}, "names is"),
    ({"names": NAMES[:2]}, "layout.num_classes is 3, expected 2"),
    ({"precision": "int8"}, "precision is 'int8', expected one of float32, bfloat16"),
    ({"layout": {"backbone": "tiny"}}, "layout is"),
    ({"layout": {**asdict(LAYOUT), "window": [1]}}, "layout.window is"),
    ({"layout": {**asdict(LAYOUT), "kind": "fcn4s"}}, "fcn4s"),
    ({"layout": {**asdict(LAYOUT), "backbone": "resnet"}}, "resnet"),
    ({"layout": {**asdict(LAYOUT), "kind": "fcn8s"}}, "network.safetensors"),
])
def test_wrong_values_are_refused_by_name(folder, changes, fault):
    write(folder, **changes)
    with pytest.raises(PipelineError) as refusal:
        Segmenter.load(folder)
    assert fault in str(refusal.value)


def test_other_folders_and_damaged_networks_are_refused(folder, tmp_path):
    with pytest.raises(PipelineError, match="give a folder that ExportSegmenter made"):
        Segmenter.load(tmp_path / "nowhere")
    (folder / "network.safetensors").write_bytes(b"nothing")
    with pytest.raises(PipelineError, match=r"network\.safetensors: cannot be read"):
        Segmenter.load(folder)


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path_factory, tensors):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "network.safetensors"
    elsewhere.write_bytes(tensors)
    (folder / "network.safetensors").unlink()
    (folder / "network.safetensors").symlink_to(elsewhere)
    with pytest.raises(PipelineError, match="out of the segmenter's folder"):
        Segmenter.load(folder)
