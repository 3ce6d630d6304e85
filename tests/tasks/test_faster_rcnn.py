"""What stages of Faster R-CNN settle by themselves, and how its steps depend on each other."""

import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pipeline.datasets.records import ImageRecord, Split
from pipeline.errors import PipelineError
from tasks.data.sharded import ShardedTask
from tasks.engine import parameters
from tasks.fast_rcnn import TrainFastRCNN
from tasks.faster_rcnn.detect import DetectFasterRCNN
from tasks.faster_rcnn.four_steps import RPNProposals, SharedConvFeatures, TrainRPN, TrainSharedFastRCNN
from tasks.faster_rcnn.joint import TrainFasterRCNN
from tasks.networks.conv_maps import ConvFeatures
from tasks.networks.defaults import DEFAULTS
from tasks.proposals.quality import ProposalQuality

STAGES = (TrainRPN, RPNProposals, TrainSharedFastRCNN, SharedConvFeatures, TrainFasterRCNN, DetectFasterRCNN)


def upstream(task) -> set:
    """All tasks that `task` needs."""
    needed = set()
    for required in task.requires().values():
        needed |= {required, *upstream(required)}
    return needed


def stages_of(task) -> dict[str, int]:
    counts = Counter(needed.stage for needed in upstream(task))
    return dict(sorted(counts.items()))


class TestKeys:
    def test_of_the_proposal_network_hold_what_defaults_lead_to(self, monkeypatch):
        before = TrainRPN(rpn_step="1")
        same = {"anchor_scales": (3, 4.5, 7), "fast_scale": 360, "rpn_learning_rate": 0.02, "rpn_lr_step": 225}
        assert before.clone(**same).key == before.key
        monkeypatch.setitem(DEFAULTS, "tiny", replace(DEFAULTS["tiny"], anchor_scales=(3.0, 6.0)))
        resolved = TrainRPN(rpn_shared_iterations=400).key_inputs()["outside"]
        assert (resolved["scales"], resolved["sides"]) == ((3.0, 6.0), (360, 600))
        assert (resolved["learning_rate"], resolved["lr_step"]) == (0.02, 300)

    def test_of_joint_training_hold_what_defaults_lead_to(self, monkeypatch):
        before = TrainFasterRCNN()
        assert TrainFasterRCNN(anchor_scales=(3, 4.5, 7), joint_learning_rate=0.02, joint_lr_step=600).key == before.key
        monkeypatch.setitem(DEFAULTS, "tiny", replace(DEFAULTS["tiny"], anchor_scales=(3.0, 6.0)))
        resolved = TrainFasterRCNN(joint_iterations=400).key_inputs()["outside"]
        assert (resolved["scales"], resolved["learning_rate"], resolved["lr_step"]) == ((3.0, 6.0), 0.02, 300)

    @pytest.mark.parametrize(("backbone", "scales"), [
        ("tiny", (3, 4.5, 7)), ("squeezenet1_0", (8, 16, 32)), ("alexnet", (8, 16, 32)), ("vgg16", (8, 16, 32)),
    ])
    def test_anchors_suit_the_backbone(self, backbone, scales):
        layout = TrainRPN(backbone=backbone).layout()
        assert (layout.scales, layout.ratios) == (scales, (0.5, 1.0, 2.0))

    def test_the_rate_drops_where_it_does_in_the_release(self):
        assert TrainRPN(backbone="vgg16", rpn_shared_iterations=80000).resolve()["lr_step"] == 60000
        assert TrainFasterRCNN(backbone="vgg16", joint_iterations=70000).resolve()["lr_step"] == 50000
        assert TrainRPN(rpn_step="1", rpn_iterations=1).resolve()["lr_step"] == 1

    @pytest.mark.parametrize("stage", STAGES)
    def test_anchors_reach_every_stage(self, stage):
        keys = {stage().key, stage(anchor_ratios=(1.0,)).key, stage(anchor_scales=(4.0, 8.0)).key}
        assert len(keys) == 3

    @pytest.mark.parametrize("setting", [
        {"rpn_iterations": 7}, {"rpn_images": 2}, {"rpn_learning_rate": 0.5}, {"rpn_before_nms": 50}, {"rpn_proposals": 40},
        {"background_overlap": 0.2}, {"fast_iterations": 7}, {"fast_regions": 64}, {"fast_scale": 300}, {"seed": 1},
        {"freeze": "none"},
    ])
    def test_settings_of_a_step_reach_all_steps_after_it_and_detection(self, setting):
        (name,) = setting
        for stage in (RPNProposals, SharedConvFeatures, TrainSharedFastRCNN, DetectFasterRCNN):
            assert stage(**setting).key != stage().key
        first, steps = TrainRPN(rpn_step="1", **setting), ("rpn_images", "rpn_learning_rate", "rpn_iterations", "freeze", "seed")
        assert (first.key != TrainRPN(rpn_step="1").key) == (name in (*steps, "fast_scale"))
        joint = DetectFasterRCNN(faster_training="joint")
        assert (joint.clone(**setting).key != joint.key) == (name in ("freeze", "seed", "fast_scale", "background_overlap"))

    def test_joint_settings_reach_joint_training_alone(self):
        assert DetectFasterRCNN(joint_iterations=7).key == DetectFasterRCNN().key
        joint = DetectFasterRCNN(faster_training="joint")
        assert DetectFasterRCNN(faster_training="joint", joint_iterations=7).key != joint.key
        assert DetectFasterRCNN(faster_training="joint", rpn_iterations=7).key == joint.key

    def test_the_length_of_step_3_reaches_detection_but_not_step_1(self):
        assert TrainRPN(rpn_step="1", rpn_shared_iterations=7).key == TrainRPN(rpn_step="1").key
        assert TrainRPN(rpn_step="3", rpn_shared_iterations=7).key != TrainRPN(rpn_step="3").key
        assert DetectFasterRCNN(rpn_shared_iterations=7).key != DetectFasterRCNN().key

    def test_limits_of_detection_redo_nothing_of_training(self):
        changed = DetectFasterRCNN(rpn_test_proposals=10, rpn_test_before_nms=99)
        assert changed.key != DetectFasterRCNN().key
        assert {needed.key for needed in upstream(changed)} == {needed.key for needed in upstream(DetectFasterRCNN())}

    @pytest.mark.parametrize("settings", [{}, {"freeze": "all"}, {"freeze": "all", "faster_training": "joint"}])
    def test_the_size_of_shards_reaches_every_stage_that_has_some(self, settings):
        sizes = {(needed.stage, needed.shard_size) for needed in upstream(DetectFasterRCNN(shard_size=5, **settings))
                 if isinstance(needed, ShardedTask)}
        assert {size for _, size in sizes} == {5}

    def test_steps_are_different_stages(self):
        assert TrainRPN(rpn_step="1").key != TrainRPN(rpn_step="3").key
        assert TrainSharedFastRCNN(fast_step="2").key != TrainSharedFastRCNN(fast_step="4").key
        with pytest.raises(parameters.SettingError, match="--rpn-step: found '2', expected one of 1, 3"):
            TrainRPN(rpn_step="2")
        with pytest.raises(parameters.SettingError, match="--fast-step: found '3', expected one of 2, 4"):
            TrainSharedFastRCNN(fast_step="3")


class TestSteps:
    """Section 3.2: what each step goes on from."""

    def test_1_starts_from_the_first_weights(self):
        assert set(stages_of(TrainRPN(rpn_step="1"))) == {"GenerateDigits", "IndexDataset", "PretrainClassifier"}

    def test_2_starts_from_them_again_and_takes_the_proposals_of_step_1(self):
        task = TrainSharedFastRCNN(fast_step="2")
        required = task.requires()
        assert required["weights"].stage == "PretrainClassifier"
        assert (required["proposals"].stage, required["proposals"].rpn_step) == ("RPNProposals", "1")
        assert required["proposals"].split == "train"
        assert "maps" not in required
        assert stages_of(task)["TrainRPN"] == 1

    def test_3_sees_the_maps_of_the_trunk_of_step_2(self):
        required = TrainRPN(rpn_step="3").requires()
        assert required.keys() == {"train", "maps"}
        network = required["maps"].requires()["network"]
        assert (required["maps"].stage, network.stage, network.fast_step) == ("SharedConvFeatures", "TrainSharedFastRCNN", "2")

    def test_4_goes_on_from_step_2_on_the_same_maps_with_the_proposals_of_step_3(self):
        required = TrainSharedFastRCNN(fast_step="4").requires()
        assert (required["weights"].stage, required["weights"].fast_step) == ("TrainSharedFastRCNN", "2")
        assert (required["proposals"].rpn_step, required["proposals"].split) == ("3", "train")
        assert required["maps"].key == TrainRPN(rpn_step="3").requires()["maps"].key
        assert required["maps"].requires()["network"].key == required["weights"].key
        assert required["proposals"].requires()["maps"].key == required["maps"].key

    def test_frozen_layers_train_steps_1_and_2_from_cached_maps(self):
        for task in (TrainRPN(rpn_step="1", freeze="all"), TrainSharedFastRCNN(fast_step="2", freeze="all")):
            assert isinstance(task.requires()["maps"], ConvFeatures)
        assert isinstance(TrainFasterRCNN(freeze="all").requires()["maps"], ConvFeatures)

    def test_maps_are_of_the_scale_and_of_mirrors_where_training_sees_them(self):
        maps = TrainRPN(fast_scale=320, fast_longest_side=500).requires()["maps"]
        assert (maps.map_scales, maps.map_longest_side, maps.map_mirrored) == ((320,), 500, False)  # digits have no mirrors
        for mirror in (True, False):
            task = RPNProposals(dataset="elsewhere", mirror=mirror, split="train")
            assert task.requires()["maps"].map_mirrored == mirror
        assert not RPNProposals(dataset="elsewhere", split="test").requires()["maps"].map_mirrored

    def test_detection_needs_steps_3_and_4_or_joint_training_and_no_proposals(self):
        assert {(name, task.stage) for name, task in DetectFasterRCNN().requires().items()} == {
            ("index", "IndexDataset"), ("rpn", "TrainRPN"), ("network", "TrainSharedFastRCNN"),
        }
        assert (DetectFasterRCNN().requires()["rpn"].rpn_step, DetectFasterRCNN().requires()["network"].fast_step) == ("3", "4")
        assert {"RPNProposals": 2, "TrainRPN": 2, "TrainSharedFastRCNN": 2, "SharedConvFeatures": 1}.items() <= (
            stages_of(DetectFasterRCNN()).items()
        )
        joint = stages_of(DetectFasterRCNN(faster_training="joint"))
        assert joint.keys() == {"GenerateDigits", "IndexDataset", "PretrainClassifier", "TrainFasterRCNN"}
        for training in ("alternating", "joint"):
            assert "RegionProposals" not in stages_of(DetectFasterRCNN(faster_training=training))

    def test_background_and_iterations_of_steps_2_and_4(self):
        second, fourth = (TrainSharedFastRCNN(fast_step=step, fast_iterations=7, shared_iterations=9) for step in ("2", "4"))
        assert (second.iterations, fourth.iterations) == (7, 9)
        assert (second.resolve()["lr_step"], fourth.resolve()["lr_step"]) == (5, 6)
        assert second.background_overlaps == fourth.background_overlaps == (0.1, 0.5)
        assert TrainSharedFastRCNN(background_overlap=0).background_overlaps == (0.0, 0.5)  # the release's

    def test_iterations_of_step_4_redo_nothing_before_it(self):
        changed, before = DetectFasterRCNN(shared_iterations=9), DetectFasterRCNN()
        known = {needed.key for needed in upstream(before)}
        new = [needed for needed in upstream(changed) if needed.key not in known]
        assert changed.key != before.key
        assert [(needed.stage, needed.fast_step) for needed in new] == [("TrainSharedFastRCNN", "4")]

    @pytest.mark.parametrize("step", ["2", "4"])
    def test_no_step_trains_on_difficult_objects(self, step):
        boxes, labels = np.float32([[0, 0, 9, 9], [5, 5, 20, 20]]), np.array([1, 0])
        split = Split("train", ("x", "y"), (ImageRecord("a", "a.png", "", 60, 50, boxes, labels, np.array([True, False])),))
        (image,) = TrainSharedFastRCNN(fast_step=step).training_images(split)
        assert (image.boxes.tolist(), image.labels.tolist()) == ([[5, 5, 20, 20]], [0])
        assert TrainFastRCNN().training_images(split) is split.images


class TestQuality:
    @pytest.mark.parametrize(("source", "stage", "step"), [
        ("search", "RegionProposals", None), ("rpn1", "RPNProposals", "1"), ("rpn3", "RPNProposals", "3"),
    ])
    def test_is_of_the_source(self, source, stage, step):
        task = ProposalQuality(source=source, split="test")
        proposals = task.requires()["proposals"]
        assert (proposals.stage, getattr(proposals, "rpn_step", None), proposals.split) == (stage, step, "test")

    def test_is_another_for_each_source(self):
        assert len({ProposalQuality(source=source).key for source in ("search", "rpn1", "rpn3")}) == 3


class TestMisfits:
    """Anchors that do not suit the images: warnings, or an error that names what to change."""

    def sample(self, size, boxes, **settings):
        height, width = size
        boxes = np.float32(boxes).reshape(-1, 4)
        record = ImageRecord("a", "a.png", "", width, height, boxes, np.zeros(len(boxes), np.int64), np.zeros(len(boxes), bool))
        split = Split("train", ("x",), (record,))
        return TrainRPN(fast_scale=min(size), **settings).anchor_sampler(split, 0, 1)

    @pytest.mark.parametrize(("size", "boxes", "message"), [
        ((110, 250), [[0, 0, 90, 90]], "anchors of 161 x 84, 112 x 112, 50 x 99, 77 x 154 pixels fit into no scaled image"),
        ((480, 640), [[0, 0, 40, 40]], "all objects are smaller (40 pixels at most in scaled images) than the smallest anchor"),
        ((480, 640), [[0, 0, 400, 400]], "all objects are larger (400 pixels and more in scaled images) than the largest"),
    ])
    def test_warning_names_the_stage_and_the_cause(self, caplog, size, boxes, message):
        with caplog.at_level(logging.WARNING, "rcnn"):
            sampler = self.sample(size, boxes)
        assert message in caplog.text
        assert "TrainRPN/" in caplog.text
        assert sampler.num_usable == 1

    def test_none_for_what_suits(self, caplog):
        with caplog.at_level(logging.WARNING, "rcnn"):
            self.sample((480, 640), [[0, 0, 90, 90]])
            self.sample((480, 640), [])
        assert caplog.text == ""

    def test_images_smaller_than_every_anchor_are_refused(self):
        with pytest.raises(PipelineError, match=r"no anchor .* fits into any scaled image \(50 x 30 at most\): lower --anchor"):
            self.sample((30, 50), [[0, 0, 20, 20]])
        assert self.sample((30, 50), [[0, 0, 20, 20]], anchor_scales=(1.0,)).num_usable == 1
