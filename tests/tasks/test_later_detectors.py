"""Settings of the later detectors, and what their keys hold."""

import pytest

from tasks.engine.parameters import SettingError
from tasks.evaluation.evaluate import Evaluate
from tasks.evaluation.summary import Summarise
from tasks.later_detectors.detect import DetectWithNetwork
from tasks.later_detectors.training import TrainDetector
from tasks.networks.weights import LoadWeights, PretrainClassifier

FCOS = "torchvision:fcos_resnet50_fpn"


def test_defaults_of_the_backbone():
    tiny, squeezenet = TrainDetector(architecture="retinanet").design_values, TrainDetector(
        architecture="retinanet", backbone="squeezenet1_0", weights="imagenet"
    ).design_values
    assert tiny == {"trunk": "tiny", "size": 360, "channels": 64, "regions": 64}
    assert squeezenet == {"trunk": "squeezenet1_0", "size": 600, "channels": 256, "regions": 64}
    assert TrainDetector().design_values["size"] == 300
    assert TrainDetector(architecture="mask-rcnn", detector_trunk="paper").design_values == {
        "trunk": "paper", "size": 800, "channels": 256, "regions": 512,
    }
    assert TrainDetector(architecture=FCOS).design_values["trunk"] == "paper"


def test_rates_of_the_papers():
    """By images in a step."""
    paper = {"detector_trunk": "paper", "detector_images": 16}
    assert TrainDetector(architecture="retinanet", **paper).resolve()["learning_rate"] == pytest.approx(0.01)
    assert TrainDetector(architecture="mask-rcnn", **paper).resolve()["learning_rate"] == pytest.approx(0.02)
    ssd = TrainDetector(detector_trunk="paper", detector_images=32).resolve()
    assert ssd["learning_rate"] == pytest.approx(0.001)
    assert ssd["augment"]


def test_augmentation_follows_the_first_weights():
    assert not TrainDetector().augments
    assert TrainDetector(weights="imagenet").augments
    assert not TrainDetector(architecture="retinanet", weights="imagenet").augments
    assert TrainDetector(detector_augment="true").augments


def test_light_changes_where_weights_are_random():
    assert TrainDetector().changes_light
    assert not TrainDetector(detector_trunk="paper").changes_light


def test_first_weights():
    assert isinstance(TrainDetector().requires()["weights"], PretrainClassifier)
    assert isinstance(TrainDetector(weights="imagenet", backbone="vgg16").requires()["weights"], LoadWeights)
    assert TrainDetector(detector_trunk="paper").requires().keys() == {"train"}


def test_a_setting_that_is_the_default_has_the_same_key():
    assert TrainDetector(detector_size=300, detector_channels=64, detector_images=8).key == TrainDetector().key


def test_content_of_the_weights_is_in_the_key(tmp_path):
    keys = []
    for number in (1, 2):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(bytes(number))
        keys.append(TrainDetector(architecture=FCOS, detector_weights=str(path)).key)
    assert len({*keys, TrainDetector(architecture=FCOS).key}) == 3


@pytest.mark.parametrize(("name", "value"), [("detector_min_score", 0.2), ("nms_threshold", 0.5), ("max_detections", 7)])
def test_settings_of_detection_train_nothing_again(name, value):
    changed, default = DetectWithNetwork(**{name: value}), DetectWithNetwork()
    assert changed.key != default.key
    assert changed.training_tasks()["network"].key == default.training_tasks()["network"].key


@pytest.mark.parametrize("chain", ["ssd", "retinanet", "mask-rcnn", FCOS])
def test_chains_by_name(chain):
    assert chain not in Summarise().chains
    required = Summarise(chains=(chain,)).requires()
    detection = required[f"evaluate {chain}"].requires()["detections"]
    assert isinstance(detection, DetectWithNetwork)
    assert detection.chain == detection.architecture == chain
    assert "proposals" not in required
    assert Evaluate(chain=chain).detection().key == detection.key


def test_unknown_names():
    for name in ("torchvision:resnet50", "torchvision:", "yolo"):
        with pytest.raises(SettingError, match="--chains: found"):
            Summarise(chains=(name,))
        with pytest.raises(SettingError, match="--chain: found"):
            Evaluate(chain=name)
        with pytest.raises(SettingError, match=r"--architecture: found .*, expected one of ssd, retinanet, mask-rcnn"):
            TrainDetector(architecture=name)
