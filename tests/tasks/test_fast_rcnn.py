"""What stages of Fast R-CNN settle by themselves, and their log for TensorBoard."""

import sys
from dataclasses import replace

import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.fast_rcnn.network import FastRCNN
from pipeline.networks.backbones import make_backbone
from tasks.fast_rcnn import CompressFastRCNN, TrainFastRCNN
from tasks.faster_rcnn.four_steps import TrainRPN, TrainSharedFastRCNN
from tasks.faster_rcnn.joint import TrainFasterRCNN
from tasks.networks.defaults import DEFAULTS
from tasks.networks.finetune import FineTune
from tasks.networks.scalar_log import scalar_log


class TestSides:
    @pytest.mark.parametrize(("settings", "sides"), [
        ({"backbone": "vgg16"}, (600, 1000)), ({"backbone": "tiny"}, (360, 600)), ({"fast_scale": 300}, (300, 500)),
        ({"fast_scale": 300, "fast_longest_side": 333}, (300, 333)), ({"fast_longest_side": 700}, (360, 700)),
    ])
    def test_defaults_and_settings(self, settings, sides):
        assert TrainFastRCNN(**settings).sides == sides


class TestScalarLog:
    def test_writes_what_tensorboard_reads(self, tmp_path):
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        with scalar_log(str(tmp_path), "TrainFastRCNN/abc") as log:
            log(1, {"class_loss": 2.5, "learning rate": 0.25})
            log(2, {"class_loss": 1.5, "learning rate": 0.25})
        events = accumulator.EventAccumulator(str(tmp_path / "TrainFastRCNN" / "abc"))
        events.Reload()
        assert [(event.step, event.value) for event in events.Scalars("class_loss")] == [(1, 2.5), (2, 1.5)]
        assert [event.value for event in events.Scalars("learning rate")] == [0.25, 0.25]

    def test_without_a_folder_there_is_none(self):
        with scalar_log("", "TrainFastRCNN/abc") as log:
            assert log is None

    def test_tells_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(PipelineError, match=r"TensorBoard is not installed \(.*\); pip install tensorboard"):
            scalar_log(str(tmp_path), "x").__enter__()


@pytest.mark.parametrize("stage", [FineTune, TrainFastRCNN, TrainRPN, TrainSharedFastRCNN, TrainFasterRCNN])
@pytest.mark.parametrize(("settings", "changes"), [
    ({}, True), ({"weights": "imagenet"}, False), ({"weights": "mine.pth"}, False), ({"light": "false"}, False),
    ({"weights": "imagenet", "light": "true"}, True),
])
def test_light_changes_where_weights_are_made_from_nothing_or_it_shall(stage, settings, changes):
    task = stage(**settings)
    assert (task.changes_light, task.resolve()["light"]) == (changes, changes)


class TestKeys:
    def test_hold_what_defaults_lead_to(self, monkeypatch):
        before = TrainFastRCNN()
        assert TrainFastRCNN(fast_scale=360, fast_learning_rate=0.02, fast_lr_step=600, fast_regions=512).key == before.key
        monkeypatch.setitem(DEFAULTS, "tiny", replace(DEFAULTS["tiny"], scale=400))
        resolved = before.key_inputs()["outside"]
        values = [resolved[name] for name in ("sides", "learning_rate", "lr_step", "regions")]
        assert values == [(400, 666), 0.02, 600, 512]


@pytest.mark.parametrize(("backbone", "layer", "layers"), [
    ("tiny", "fc7", "has only fc6"), ("squeezenet1_0", "fc7", "has only fc6"),
    ("efficientnet_lite0", "fc6", "has no fully connected layer"),
])
def test_a_rank_of_a_layer_that_is_not_there_is_told_before_training(backbone, layer, layers):
    task = CompressFastRCNN(backbone=backbone, **{f"svd_{layer}": 8})
    with pytest.raises(PipelineError, match=f"--svd-{layer}: backbone {backbone} {layers}"):
        task.requires()


def test_fully_connected_layers_are_those_of_the_networks():
    for name, defaults in DEFAULTS.items():
        with torch.device("meta"):
            layers = FastRCNN(make_backbone(name), 2).backbone.fc
        assert tuple(layer for layer, module in layers.items() if isinstance(module, torch.nn.Linear)) == defaults.fully_connected
