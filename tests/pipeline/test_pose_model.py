"""A pose model's folder, and pose models in Python: what is found, and what is refused by name."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import PipelineError
from pipeline.networks.backbones import make_backbone
from pipeline.networks.weights import save_tensors
from pipeline.pose.network import PoseNetwork
from pipeline.pose_model import PoseModel

FRAMING = {"context": 1.2, "square": True, "sigma": 1.0}
SETTINGS = {
    "names": ["head", "tail"], "limbs": [[0, 1]], "classes": ["cat"], "backbone": "tiny", "sides": [48, 48], "framing": FRAMING,
    "precision": "float32",
}
PIXELS = np.random.default_rng(0).integers(0, 256, (41, 60, 3), np.uint8)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The bytes of a network's file for each of two stages. The first always says (0.1, 0.2) of its window, the second 0."""
    torch.manual_seed(0)
    files = []
    for said in ([0.1, 0.2], [0, 0]):
        network = PoseNetwork(make_backbone("tiny"), 2, 48)
        torch.nn.init.zeros_(network.output.weight)
        with torch.no_grad():
            network.output.bias.copy_(torch.tensor(2 * said))
        path = tmp_path_factory.mktemp("network") / "stage.safetensors"
        save_tensors(network, path)
        files.append(path.read_bytes())
    return files


@pytest.fixture
def folder(tmp_path, networks):
    for stage, content in enumerate(networks, 1):
        (tmp_path / f"stage-{stage}.safetensors").write_bytes(content)
    write(tmp_path)
    return tmp_path


def write(folder, **changes):
    (folder / "pose.json").write_text(json.dumps({**SETTINGS, **changes}))


def test_joints_lie_where_the_networks_say(folder):
    """In a window of 1.2 longer sides around the box: (0.1, 0.2) of it from its centre."""
    model = PoseModel.load(folder)
    assert (model.names, model.classes) == (("head", "tail"), ("cat",))
    joints = model.estimate(PIXELS, np.array([[10, 10, 30, 20], [0, 0, 60, 40]]))
    expected = np.array([[20 + 2.4, 15 + 4.8], [30 + 7.2, 20 + 14.4]])[:, None]
    np.testing.assert_allclose(joints, np.broadcast_to(expected, (2, 2, 2)), atol=1.5)  # windows are whole pixels


def test_without_boxes_the_whole_image_is_one(folder, tmp_path):
    model = PoseModel.load(folder)
    joints = model.estimate(PIXELS)
    np.testing.assert_array_equal(joints, model.estimate(PIXELS, [[0, 0, 60, 41]]))
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    np.testing.assert_array_equal(model.estimate(tmp_path / "image.png"), joints)
    assert model.estimate(PIXELS, np.zeros((0, 4))).shape == (0, 2, 2)


def test_joints_and_limbs_are_drawn_in_the_pose_s_colour(folder):
    model, black = PoseModel.load(folder), np.zeros((40, 60, 3), np.uint8)
    drawn = np.asarray(model.draw(black, np.array([[[10, 20], [50, 20]]])))
    assert drawn[20, 30].any()  # on the limb
    assert drawn[20, 10].any()
    assert not drawn[:15].any()
    assert np.array_equal(np.asarray(model.draw(black, np.zeros((0, 2, 2)))), black)


@pytest.mark.parametrize("boxes", [[[5, 5, 5, 9]], [[0, 0, 9]], [1, 2, 3, 4], [[0, 0, np.nan, 9]]])
def test_boxes_without_area_are_refused(folder, boxes):
    with pytest.raises(PipelineError, match="boxes: expected finite numbers"):
        PoseModel.load(folder).estimate(PIXELS, boxes)


@pytest.mark.parametrize(("changes", "fault"), [
    ({"names": ["head", "head"]}, "names has a name twice"),
    ({"names": "head"}, "names is 'head', expected a list of 1 to 1000"),
    ({"limbs": [[0, 2]]}, "limbs is [[0, 2]], expected a list of pairs of numbers from 0 to 1"),
    ({"classes": []}, "classes is []"),
    ({"sides": [48, 10**6]}, "sides is [48, 1000000]"),
    ({"sides": [48, 48, 48]}, "stage-3.safetensors: cannot be read"),
    ({"sides": [48, 1]}, "1 x 1 pixels do not suit backbone tiny"),
    ({"precision": "int8"}, "precision is 'int8', expected one of float32, bfloat16"),
    ({"framing": {**FRAMING, "sigma": 0}}, "framing.sigma is 0"),
    ({"framing": {"context": 1}}, "framing has context, expected context, sigma, square"),
    ({"backbone": "resnet"}, "resnet"),
    ({"names": ["head", "tail", "paw"]}, "stage-1.safetensors"),
])
def test_wrong_values_are_refused_by_name(folder, changes, fault):
    write(folder, **changes)
    with pytest.raises(PipelineError) as refusal:
        PoseModel.load(folder)
    assert fault in str(refusal.value)


def test_other_folders_damaged_networks_and_links_are_refused(folder, tmp_path_factory):
    with pytest.raises(PipelineError, match="give a folder that ExportPoseModel made"):
        PoseModel.load(folder / "nowhere")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "stage.safetensors"
    path = folder / "stage-2.safetensors"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(PipelineError, match="out of the pose model's folder"):
        PoseModel.load(folder)
    path.unlink()
    path.write_bytes(b"nothing")
    with pytest.raises(PipelineError, match=r"stage-2\.safetensors: cannot be read"):
        PoseModel.load(folder)
