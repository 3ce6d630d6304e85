"""The network of a stage, its loss, its training and the cascade."""

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.networks.backbones import make_backbone
from pipeline.networks.training import Schedule, TrainingRun
from pipeline.networks.weights import save_tensors
from pipeline.pose.estimate import Framing, PoseEstimator
from pipeline.pose.network import PoseNetwork, pose_loss, restore_network
from pipeline.pose.sampling import ObjectWindows
from pipeline.pose.training import StageSettings, train_pose

ORDER = np.array([1, 0, 2])
CPU = torch.device("cpu")


def test_the_loss_leaves_out_joints_without_label():
    outputs = torch.tensor([[[1.0, 2], [3, 3]], [[0, 0], [1, 1]]], requires_grad=True)
    targets = torch.tensor([[[0.0, 0], [9, 9]], [[0, 2], [1, 1]]])
    labelled = torch.tensor([[True, False], [True, True]])
    loss = pose_loss(outputs, targets, labelled)
    assert loss.item() == pytest.approx((1 + 4 + 4) / 2)
    loss.backward()
    assert outputs.grad.tolist() == [[[1, 2], [0, 0]], [[0, -2], [0, 0]]]


def test_targets_are_standardised_over_what_is_labelled():
    torch.manual_seed(0)
    model = PoseNetwork(make_backbone("tiny"), 2, 64)
    targets = np.array([[[0.1, 0], [5, 5]], [[0.3, 0], [7, 7]]])
    model.calibrate(torch.zeros(2, 3, 64, 64), targets, np.array([[True, False], [True, False]]))
    np.testing.assert_allclose(model.target_mean, [[0.2, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(model.target_deviation, [[0.1, 0.01], [0.01, 0.01]], atol=1e-6)  # never less than 0.01
    parts = torch.rand(3, 2, 2)
    torch.testing.assert_close(model.parts(model.standardised(parts)), parts)


@pytest.mark.parametrize(("backbone", "side"), [
    ("tiny", 64), ("squeezenet1_0", 100), ("efficientnet_lite0", 64), ("mobilenet_v3_large", 64), ("resnet18", 64),
])
def test_shapes_of_the_backbones(backbone, side):
    torch.manual_seed(0)
    model = PoseNetwork(make_backbone(backbone), 3, side).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 3, side, side)).shape == (2, 3, 2)


def test_features_keep_where_things_are():
    """A shifted image has other features: those of a mean over cells would hardly change."""
    torch.manual_seed(0)
    model = PoseNetwork(make_backbone("efficientnet_lite0"), 2, 128).eval()
    image = torch.zeros(1, 3, 128, 128)
    image[..., 20:50, 20:50] = 2
    with torch.no_grad():
        features, shifted = model.features(image), model.features(image.roll(64, -1))
    assert model.channels * 16 == features.shape[1]
    assert (features - shifted).abs().mean() > 0.1 * features.abs().mean()


def test_windows_that_do_not_suit_a_backbone():
    with pytest.raises(PipelineError, match="windows of 100 x 100 pixels do not suit backbone alexnet"):
        PoseNetwork(make_backbone("alexnet"), 2, 100)


@pytest.fixture
def trained(posed, one_thread):
    split, read, objects = posed
    sampler = ObjectWindows(objects, ORDER, 3, batch_size=16, mirror=False, context=1.2, square=True)

    def make(iterations=60, checkpoint=None):
        torch.manual_seed(1)
        run = TrainingRun(Schedule(iterations, 0.01, 40), 3, CPU, checkpoint=checkpoint)
        return train_pose(make_backbone("tiny"), run, sampler=sampler, images=split.images, read=read, settings=StageSettings(64))

    return make


def test_training_learns_where_the_corners_are(trained, posed):
    model, losses = trained()
    assert losses[-10:].mean() < 0.3 * losses[:3].mean()
    split, read, objects = posed
    estimator = PoseEstimator([model, model], Framing(1.2, True, 1.0), CPU, "float32")
    poses = np.concatenate([estimator.estimate(read(record), record.boxes) for record in split.images], axis=1)
    assert poses.shape == (2, 6, 3, 2)
    sides = objects.boxes[:, 2] - objects.boxes[:, 0]
    far = np.linalg.norm(poses[0] - objects.joints, axis=-1)[:, :2] / sides[:, None]
    assert far.mean() < 0.15
    alone = estimator.estimate(read(split.images[0]), np.zeros((0, 4)))
    assert alone.shape == (2, 0, 3, 2)


def test_equal_trainings_have_equal_bytes_and_can_be_restored(trained, tmp_path):
    from safetensors.torch import load_file

    for name in ("one", "other"):
        save_tensors(trained(3)[0], tmp_path / f"{name}.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "other.safetensors").read_bytes()
    tensors = load_file(tmp_path / "one.safetensors")
    restored = restore_network(tensors, "tiny", 3, 64, "here")
    torch.testing.assert_close(restored.target_mean, tensors["target_mean"])
    with pytest.raises(PipelineError, match="here: not the weights of"):
        restore_network(tensors, "tiny", 4, 64, "here")


def test_a_later_stage_moves_each_joint_by_its_own_numbers(posed):
    """A network whose output is always (0.25, -0.5) moves each joint by these parts of the side of its window."""
    split, read, objects = posed
    torch.manual_seed(0)
    networks = [PoseNetwork(make_backbone("tiny"), 3, 64) for _ in range(2)]
    for network in networks:
        torch.nn.init.zeros_(network.output.weight)
    with torch.no_grad():
        networks[1].output.bias.copy_(torch.tensor([0.25, -0.5, 0, 0, 0.25, -0.5]))
    estimator = PoseEstimator(networks, Framing(1.0, True, 2.0), CPU, "float32")
    first, second = estimator.estimate(read(split.images[0]), split.images[0].boxes)
    side = 2 * (objects.boxes[0, 2] - objects.boxes[0, 0])
    np.testing.assert_allclose((second - first)[0], side * np.array([[0.25, -0.5], [0, 0], [0.25, -0.5]]), atol=1.1)


def test_objects_that_are_not_found_have_no_pose(posed):
    torch.manual_seed(0)
    split, read, objects = posed
    estimator = PoseEstimator([PoseNetwork(make_backbone("tiny"), 3, 64)] * 2, Framing(1.2, True, 1.0), CPU, "float32")
    boxes = np.array([[np.nan] * 4, objects.boxes[0]])
    joints = estimator.estimate_found(read(split.images[0]), boxes)
    assert np.isnan(joints[:, 0]).all()
    np.testing.assert_array_equal(joints[:, 1:], estimator.estimate(read(split.images[0]), boxes[1:]))
    assert estimator.estimate_found(read(split.images[0]), boxes[:0]).shape == (2, 0, 3, 2)
