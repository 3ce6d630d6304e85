"""Faster R-CNN's four steps and joint training, in whole runs."""

import re
from collections import Counter
from itertools import combinations

import pytest
from safetensors.numpy import load_file

from tests.tasks.full_pipeline.runs import FASTER, STEPS, inputs_of, read_summary, same, tensors_of, trunk_of

pytestmark = pytest.mark.slow


class TestFasterRCNN:
    def test_steps_3_and_4_leave_the_trunk_of_step_2_as_it_is(self, copy):
        """To the bit; steps 1 and 2 have each trained one of their own."""
        project = copy
        pretrained = trunk_of(tensors_of(project, "PretrainClassifier", "backbone.safetensors"))
        first = trunk_of(tensors_of(project, "TrainRPN", "backbone.safetensors", rpn_step="1"))
        second, fourth = (
            tensors_of(project, "TrainSharedFastRCNN", "fast_rcnn.safetensors", fast_step=step) for step in ("2", "4")
        )
        assert same(trunk_of(second), trunk_of(fourth))
        assert not same({"fc6": second["backbone.fc.fc6.weight"]}, {"fc6": fourth["backbone.fc.fc6.weight"]})
        trunks = [pretrained, first, trunk_of(second)]
        assert not any(same(*pair) for pair in combinations(trunks, 2))
        (third,) = [folder for folder, manifest in project.manifests().items() if manifest["stage"] == "TrainRPN"
                    and manifest["settings"]["rpn_step"] == "3"]
        assert sorted(path.name for path in (project.cache / third).iterdir()) == [
            "manifest.json", "rpn.safetensors", "training.csv",
        ]

    def test_table_tells_what_proposals_by_the_network_gain(self, cold):
        _, output, _ = cold
        pattern = r"^Proposals included, Faster R-CNN is [\d.]+ times as fast as Fast R-CNN \(published, .*: 9\.2\)\.$"
        assert re.search(pattern, output, re.M)

    @pytest.mark.exhaustive
    def test_number_of_test_proposals_redoes_detection(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--rpn-test-proposals", "20")
        assert project.made(before) == FASTER

    @pytest.mark.exhaustive
    def test_number_of_training_proposals_redoes_all_but_step_1(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--rpn-proposals", "40")
        assert project.made(before) == FASTER + STEPS - Counter(TrainRPN=1)

    @pytest.mark.exhaustive
    def test_anchors_that_do_not_fit_are_told_of(self, project):
        before = project.manifests()
        output = project.run("FullPipeline", "--anchor-scales", "4,8,32")
        assert project.made(before) == FASTER + STEPS
        sides = "736 x 384, 512 x 512, 352 x 704"
        message = f"anchors of {sides} pixels fit into no scaled image and learn nothing; lower --anchor-scales"
        assert len(re.findall(rf"TrainRPN/[0-9a-f]+: {message}$", output, re.M)) == 2

    @pytest.mark.exhaustive
    def test_joint_training_on_request(self, project):
        before = project.manifests()
        project.run("FullPipeline", "--faster-training", "joint")
        assert project.made(before) == FASTER + Counter(TrainFasterRCNN=1)
        assert inputs_of(project, before, "DetectFasterRCNN").keys() == {"index", "network"}
        before_training = ["GenerateDigits", "PretrainClassifier", "TrainFasterRCNN"]
        needed = [manifest["seconds"] for manifest in project.manifests().values() if manifest["stage"] in before_training
                  or (manifest["stage"] == "IndexDataset" and manifest["settings"]["split"] == "train")]
        assert read_summary(project)["chains"]["faster-rcnn"]["train_seconds"] == pytest.approx(sum(needed))

    @pytest.mark.exhaustive
    @pytest.mark.parametrize("training", ["alternating", "joint"])
    def test_frozen_layers_train_from_cached_maps(self, project, training):
        before = project.manifests()
        project.run("FullPipeline", "--freeze", "all", "--chains", "faster-rcnn", "--faster-training", training)
        stage = {"alternating": "TrainSharedFastRCNN", "joint": "TrainFasterRCNN"}[training]
        steps = STEPS if training == "alternating" else Counter({stage: 1})
        assert project.made(before) - Counter(ConvFeatures=3) == FASTER + steps
        assert "maps" in inputs_of(project, before, stage)
        pretrained = trunk_of(tensors_of(project, "PretrainClassifier", "backbone.safetensors"))
        for name, manifest in project.manifests().items():
            if manifest["stage"] == stage and name not in before:
                assert same(trunk_of(load_file(project.cache / name / "fast_rcnn.safetensors")), pretrained)

    @pytest.mark.parametrize(("source", "maps"), [pytest.param("rpn1", 0, marks=pytest.mark.exhaustive), ("rpn3", 3)])
    def test_quality_of_its_proposals(self, project, source, maps):
        before = project.manifests()
        output = project.run("ProposalQuality", "--source", source, "--split", "test")
        assert f"proposals '{source}' on 4 images of 'test', " in output
        assert project.made(before) == Counter(ProposalQuality=1, RPNProposals=3) + Counter(SharedConvFeatures=maps)
        assert inputs_of(project, before, "ProposalQuality")["proposals"]["stage"] == "RPNProposals"
