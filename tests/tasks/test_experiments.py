"""The experiment files: what a run on PASCAL VOC needs to be compared with the published figures."""

import configparser
from pathlib import Path

import pytest
import torch

from pipeline.networks.backbones import make_backbone

FILES = {path.stem: path for path in (Path(__file__).resolve().parents[2] / "experiments").glob("*.cfg")}
OF_RCNN = "voc2007-alexnet", "voc2007-vgg16", "voc2012-vgg16"
PYRAMID_BINS = 1 + 4 + 9 + 36


def read(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(FILES[name])
    return parser


@pytest.mark.parametrize("name", FILES)
def test_arithmetic_is_the_releases_and_no_list_is_cut(name):
    experiment = read(name)
    assert experiment["network"]["precision"] == "float32"
    assert experiment.getint("proposals", "max_proposals") >= 10**5


@pytest.mark.parametrize("name", OF_RCNN)
def test_box_regressors_have_memory_for_all_examples(name):
    experiment = read(name)
    with torch.device("meta"):  # for its sizes alone
        backbone = make_backbone(experiment["network"]["backbone"])
    gigabytes = experiment.getfloat("boxes", "gigabytes", fallback=1.5)
    for values in (backbone.sizes["pool5"], PYRAMID_BINS * backbone.view.channels):
        # The condition of `train_box_regressors` for the matrix that takes all examples.
        assert 8 * (values + 1) ** 2 <= gigabytes * 1e9
    assert experiment.getfloat("svm", "gigabytes") >= 16


@pytest.mark.parametrize("name", ["voc2007-alexnet", "voc2007-vgg16"])
def test_joint_training_sees_two_images_an_update(name):
    """iter_size: 2 in faster_rcnn_end2end/solver.prototxt of rbgirshick/py-faster-rcnn."""
    wanted = {"images": "2", "iterations": "70000", "learning_rate": "0.001", "lr_step": "50000"}
    assert dict(read(name)["joint"]) == wanted
