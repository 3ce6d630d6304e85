"""Weights from files in torchvision's names, what is refused, and the safetensors of the cache."""

import argparse
import contextlib
import hashlib
import os
import pathlib
import pickle
import warnings

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file

from pipeline.errors import PipelineError
from pipeline.networks.backbones import make_backbone
from pipeline.networks.weights import load_tensors, load_weights, save_tensors

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return make_backbone("tiny").eval()


@pytest.fixture
def saved(tmp_path):
    def save(value):
        torch.save(value, tmp_path / "weights.pth")
        return tmp_path / "weights.pth"

    return save


def refusal(backbone, path):
    with pytest.raises(PipelineError) as caught:
        load_weights(backbone, path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


class TestTorchvisionFiles:
    @pytest.mark.parametrize("wrap", [
        lambda tensors: tensors, lambda tensors: {"state_dict": tensors, "epoch": 90},
        lambda tensors: {f"module.{name}": value for name, value in tensors.items()},
        lambda tensors: {name: value for name, value in tensors.items() if not name.startswith("classifier")},
    ], ids=["plain", "in a checkpoint", "of DataParallel", "without classifier"])
    def test_squeezenet_gives_torchvisions_map(self, saved, wrap):
        torch.manual_seed(0)
        model = torchvision.models.squeezenet1_0().eval()
        backbone = make_backbone("squeezenet1_0").eval()
        crops = torch.randn(1, 3, 227, 227)
        with torch.inference_mode():
            assert not torch.equal(backbone.trunk(crops.clone()), model.features(crops.clone()))
            load_weights(backbone, saved(wrap(model.state_dict())))
            torch.testing.assert_close(backbone.trunk(crops.clone()), model.features(crops.clone()), rtol=0, atol=0)

    @pytest.mark.parametrize("name", ["alexnet", "vgg16", "squeezenet1_0"])
    def test_names_and_shapes_of_every_tensor_fit(self, name, monkeypatch):
        """Without values: a tensor given another's name would differ in shape or be missing."""
        with torch.device("meta"):
            backbone, tensors = make_backbone(name), getattr(torchvision.models, name)().state_dict()
        monkeypatch.setattr(torch, "load", lambda path, **options: tensors)
        load_weights(backbone, "weights.pth")
        del tensors[next(iter(tensors))]
        with pytest.raises(PipelineError, match=r"trunk\.0\.weight is missing"):
            load_weights(backbone, "weights.pth")

    @pytest.mark.slow
    def test_alexnet_gives_torchvisions_fc7(self, saved):
        torch.manual_seed(0)
        model = torchvision.models.alexnet().eval()
        path = saved(model.state_dict())
        backbone = make_backbone("alexnet").eval()
        load_weights(backbone, path)
        path.unlink()
        crops = torch.randn(1, 3, 227, 227)
        with torch.inference_mode():
            conv5 = model.features[:-1](crops.clone())
            torch.testing.assert_close(backbone.trunk(crops.clone()), conv5, rtol=0, atol=0)
            fc7 = model.classifier[:6](torch.flatten(model.avgpool(model.features[-1](conv5)), 1))
            torch.testing.assert_close(backbone(crops.clone(), "fc7"), fc7)

    def test_imagenet_weights_of_squeezenet(self, shared):
        """Features of a photograph are finite, many are active, and they differ between photographs."""
        from skimage import data

        path = shared / "weights" / "squeezenet1_0-imagenet.pth"
        if not path.is_file():
            pytest.skip(f"weights absent: {path.name}")
        backbone = make_backbone("squeezenet1_0").eval()
        load_weights(backbone, path)
        crops = np.stack([data.chelsea()[:227, 100:327], data.coffee()[:227, 100:327]]).astype(np.float32) / 255
        crops = (torch.from_numpy(crops).permute(0, 3, 1, 2) - 0.45) / 0.225
        with torch.inference_mode():
            cat, coffee = backbone(crops, "pool5")
        assert torch.isfinite(cat).all()
        assert 0.1 < (cat > 0).float().mean() < 0.9
        assert torch.nn.functional.cosine_similarity(cat, coffee, 0) < 0.7


class TestRefusals:
    def test_missing_unknown_and_misshapen_tensors_are_named(self, tiny, saved):
        tensors = dict(tiny.state_dict())
        del tensors["trunk.0.weight"]
        tensors["trunk.99.weight"] = torch.zeros(3)
        tensors["fc.fc6.bias"] = torch.zeros(7)
        assert refusal(tiny, saved(tensors)) == (
            "not the weights of tiny: trunk.0.weight is missing; trunk.99.weight is unknown; "
            "fc.fc6.bias has shape (7,), expected (256,)"
        )

    def test_only_the_first_three_are_listed(self, tiny, saved):
        assert refusal(tiny, saved({})) == (
            "not the weights of tiny: trunk.0.weight is missing; trunk.0.bias is missing; trunk.3.weight is missing and 9 more"
        )

    def test_the_weights_of_another_network_are_refused_and_leave_the_backbone_as_it_was(self, tiny, saved):
        before = {name: value.clone() for name, value in tiny.state_dict().items()}
        assert refusal(tiny, saved(torchvision.models.squeezenet1_0().state_dict())).startswith("not the weights of tiny: ")
        assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())

    def test_a_file_with_code_in_it_is_not_run(self, tiny, saved, tmp_path):
        path = saved({"weight": _Payload(tmp_path / "ran")})
        assert refusal(tiny, path).startswith("not a file of weights that torch can read without running code (")
        assert not (tmp_path / "ran").exists()

    def test_a_whole_module_is_not_run_either(self, tiny, saved):
        assert refusal(tiny, saved(tiny)).startswith("not a file of weights that torch can read without running code (")

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
    def test_what_is_no_file_of_weights(self, tiny, tmp_path, content):
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        assert refusal(tiny, path).startswith("not a file of weights that torch can read without running code (")

    def test_a_missing_file(self, tiny, tmp_path):
        assert "No such file" in refusal(tiny, tmp_path / "none.pth")

    @pytest.mark.parametrize("value", [
        print, torch.nn.Linear(2, 2), {"trunk.0.weight": os.getcwd}, argparse.Namespace(a=1), {"a": {1, 2}}, [slice(1)],
        lambda tiny: {**tiny.state_dict(), "epoch": pathlib.PurePosixPath("a")},
    ])
    def test_torchs_advice_to_run_the_code_is_not_passed_on(self, tiny, saved, value):
        path = saved(value(tiny) if isinstance(value, type(lambda: 0)) else value)
        message = refusal(tiny, path)
        assert message.isprintable()
        assert len(message) < 300
        assert not any(word in message for word in ("weights_only", "safe_globals", "trust", "Re-running", "pytorch.org"))

    @pytest.mark.parametrize("content", [pickle.dumps({"a": 1}, 4), pickle.dumps(os.getcwd), b"", b"PK\x03\x04", bytes(1000),
                                         b"\x80\x02c__builtin__\neval\n", b"\x80\x02" + b"(" * 10**5 + b"."])
    def test_other_pickles(self, tiny, tmp_path, content):
        (tmp_path / "w.pth").write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            message = refusal(tiny, tmp_path / "w.pth")
        assert "weights_only" not in message
        assert message.isprintable()

    def test_what_is_no_file_is_not_waited_for(self, tiny, tmp_path):
        os.mkfifo(tmp_path / "pipe.pth")
        (tmp_path / "link.pth").symlink_to("/dev/zero")
        assert refusal(tiny, tmp_path / "pipe.pth") == "it is a named pipe, not a regular file; give a file"
        assert refusal(tiny, tmp_path / "link.pth") == "it is a device, not a regular file; give a file"

    @pytest.mark.parametrize("change", [
        torch.Tensor.to_sparse, lambda value: value.to(torch.complex64), lambda value: value.to("meta"),
        lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.quint8),
    ], ids=["sparse", "complex", "meta", "quantized"])
    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_tensors_of_other_kinds(self, tiny, saved, change):
        tensors = tiny.state_dict()
        name = next(iter(tensors))
        assert name in refusal(tiny, saved({**tensors, name: change(tensors[name])}))

    def test_damaged_files_are_weights_or_refused(self, tiny, saved):
        path, generator = saved(tiny.state_dict()), np.random.default_rng(0)
        whole = path.read_bytes()
        places = [*generator.integers(0, 3000, 60), *(len(whole) - generator.integers(1, 3000, 60))]
        for number, place in enumerate(places):
            content = bytearray(whole)
            if number % 4:
                content[place] = int(generator.integers(256))
            else:
                del content[place:]
            path.write_bytes(content)
            with contextlib.suppress(PipelineError):
                load_weights(tiny, path)

    @pytest.mark.parametrize(("value", "kind"), [
        ([torch.zeros(1)], "list"), (torch.zeros(1), "Tensor"), ({"epoch": 3}, "dict"), ({"a": {"b": torch.zeros(1)}}, "dict"),
        ({1: torch.zeros(1)}, "dict"),
    ])
    def test_what_is_no_state_dict(self, tiny, saved, value, kind):
        assert refusal(tiny, saved(value)) == f"expected a state dict (names to tensors), found {kind}"

    def test_a_name_without_a_module_is_given_as_it_is(self, tiny, saved):
        assert refusal(tiny, saved({**tiny.state_dict(), "weight": torch.zeros(1)})).endswith("tiny: weight is unknown")


class _Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class TestSafetensors:
    def test_round_trip_in_sorted_order(self, tiny, tmp_path):
        save_tensors(tiny, tmp_path / "weights.safetensors")
        tensors = load_file(tmp_path / "weights.safetensors")
        assert sorted(tensors) == sorted(tiny.state_dict())
        torch.manual_seed(1)
        loaded = make_backbone("tiny")
        load_tensors(loaded, tensors, "somewhere")
        assert all(torch.equal(value, tiny.state_dict()[name]) for name, value in loaded.state_dict().items())

    def test_bytes_depend_on_the_values_alone(self, tiny, tmp_path):
        digests = set()
        for number, module in enumerate((tiny, tiny.to(memory_format=torch.channels_last), tiny.double())):
            save_tensors(module, tmp_path / str(number))
            digests.add(hashlib.sha256((tmp_path / str(number)).read_bytes()).hexdigest())
        assert len(digests) == 1

    def test_a_source_of_any_kind_is_named(self):
        with pytest.raises(PipelineError, match=r"^the cache: not the weights of this network: weight is missing; bias"):
            load_tensors(torch.nn.Linear(1, 1), {}, "the cache")
