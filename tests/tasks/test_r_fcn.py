"""Settings of R-FCN, and what its keys hold."""

import pytest

from pipeline.faster_rcnn.joint import PROPOSALS_IN_TRAINING
from pipeline.faster_rcnn.rpn import ProposalSettings
from tasks.evaluation.evaluate import Evaluate
from tasks.evaluation.summary import Summarise
from tasks.faster_rcnn.detect import DetectFasterRCNN
from tasks.faster_rcnn.joint import TrainFasterRCNN
from tasks.r_fcn import DetectRFCN, TrainRFCN


def test_defaults_of_the_backbone():
    assert TrainRFCN().resolve()["bins"] == 3
    assert TrainRFCN(backbone="vgg16").resolve()["bins"] == 7
    assert TrainRFCN(rfcn_k=5).resolve()["bins"] == 5
    rates = {name: TrainRFCN(backbone=name).resolve()["output_rate"] for name in ("tiny", "vgg16", "efficientnet_lite0")}
    assert rates == {"tiny": 9, "vgg16": 1, "efficientnet_lite0": 1}
    assert TrainRFCN(rfcn_k=3).key == TrainRFCN().key != TrainRFCN(rfcn_k=5).key


def test_the_rate_falls_where_it_does_in_the_release():
    assert TrainRFCN(joint_iterations=110_000).resolve()["lr_step"] == 80_000
    assert TrainFasterRCNN(joint_iterations=110_000).resolve()["lr_step"] == 50_000


@pytest.mark.parametrize("setting", [
    {"rfcn_k": 5}, {"rfcn_ohem": False}, {"joint_iterations": 7}, {"joint_images": 1}, {"background_overlap": 0.2}, {"seed": 1},
    {"anchor_scales": (4.0,)}, {"fast_scale": 300}, {"freeze": "none"},
])
def test_settings_of_training_reach_detection(setting):
    assert DetectRFCN(**setting).key != DetectRFCN().key


@pytest.mark.parametrize("setting", [{"rpn_test_proposals": 20}, {"rpn_test_before_nms": 600}, {"nms_threshold": 0.5}])
def test_settings_of_detection_train_nothing_again(setting):
    changed, default = DetectRFCN(**setting), DetectRFCN()
    assert changed.key != default.key
    assert changed.training_tasks()["network"].key == default.training_tasks()["network"].key


def test_hard_examples_are_a_setting_of_each_chain():
    hard, sampled = TrainRFCN().region_choice(), TrainRFCN(rfcn_ohem=False, background_overlap=0.2).region_choice()
    assert hard.hard.regions == 128
    assert sampled.hard is None
    assert sampled.sampling.background_overlaps == (0.2, 0.5)
    assert hard.proposals == sampled.proposals == ProposalSettings(6000, 300)
    faster, faster_hard = (TrainFasterRCNN(joint_ohem=on).region_choice() for on in (False, True))
    assert (faster.hard, faster_hard.hard) == (None, hard.hard)
    assert faster.proposals == faster_hard.proposals == PROPOSALS_IN_TRAINING


def test_without_hard_examples_the_keys_of_faster_rcnn_are_as_they_were():
    assert "ohem" not in TrainFasterRCNN().key_inputs()["outside"]
    assert not {"joint_ohem", "rfcn_ohem", "rfcn_k"} & TrainFasterRCNN().key_inputs()["parameters"].keys()
    joint = DetectFasterRCNN(faster_training="joint")
    assert joint.clone(joint_ohem=True).key != joint.key
    assert joint.clone(rfcn_k=5, rfcn_ohem=False).key == joint.key
    assert DetectFasterRCNN(joint_ohem=True).key == DetectFasterRCNN().key


def test_it_is_run_when_asked_for():
    assert "r-fcn" not in Summarise().chains
    required = Summarise(chains=("r-fcn",)).requires()
    assert isinstance(required["evaluate r-fcn"].requires()["detections"], DetectRFCN)
    assert "proposals" not in required
    assert isinstance(Evaluate(chain="r-fcn").detection(), DetectRFCN)


def test_parts_of_its_detector():
    parts = DetectRFCN().detector_parts()
    assert {name: (task.stage, file) for name, (task, file) in parts.items()} == {
        "network": ("TrainRFCN", "rfcn.safetensors"), "rpn": ("TrainRFCN", "rpn.safetensors"),
    }
