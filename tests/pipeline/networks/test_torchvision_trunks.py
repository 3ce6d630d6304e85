"""ResNets and MobileNetV3 against torchvision's own models with the same random weights, and conv5 of regions of a map."""

import hashlib

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from pipeline.errors import PipelineError
from pipeline.fast_rcnn.network import FastRCNN
from pipeline.networks import weight_files
from pipeline.networks.backbones import make_backbone
from pipeline.networks.convolutions import NormalisedConv2d
from pipeline.networks.weight_files import fetch_imagenet
from pipeline.networks.weights import load_weights, save_tensors

pytestmark = pytest.mark.usefixtures("one_thread")
LARGE = [pytest.param(name, marks=[pytest.mark.slow, pytest.mark.exhaustive]) for name in ("resnet50", "resnet101")]
MODELS = ["resnet18", "mobilenet_v3_large", *LARGE]
# The modules of ours and of torchvision's that make the same.
STAGES = {
    "resnet": {
        "trunk.0": "bn1", "trunk.2": "maxpool", "trunk.3": "layer1", "trunk.4": "layer2", "trunk.5": "layer3",
        "fc.head.blocks.0": "layer4.0", "fc.head.blocks.1": "layer4.1", "fc.head": "avgpool",
    },
    "mobilenet": {
        **{f"trunk.{number}": f"features.{number}" for number in range(13)},
        **{f"fc.head.blocks.{number}": f"features.{number}" for number in (13, 14, 15)},
        "fc.head.last": "features.16", "fc.head": "classifier.1",
    },
}


def stages_of(name):
    return STAGES["mobilenet" if name.startswith("mobilenet") else "resnet"]


def random_model(name, seed=0):
    """torchvision's, with weights and statistics that keep the size of values and are not those it was built with."""
    torch.manual_seed(seed)
    model = getattr(torchvision.models, name)().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if isinstance(module, nn.BatchNorm2d):
            parts = (module.weight, 0.8), (module.bias, -0.2), (module.running_mean, -0.2), (module.running_var, 0.8)
            for values, low in parts:
                values.data = low + 0.4 * torch.rand(values.shape)
    return model


def outputs_of(network, names, run):
    """What the modules of these `names` make when `run` runs them."""
    outputs, modules = {}, dict(network.named_modules())
    hooks = [
        modules[name].register_forward_hook(lambda module, inputs, output, name=name: outputs.__setitem__(name, output.clone()))
        for name in names
    ]
    with torch.inference_mode():
        run()
    for hook in hooks:
        hook.remove()
    return outputs


def loaded(name, model, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(model.state_dict(), path)
    backbone = make_backbone(name).eval()
    load_weights(backbone, path)
    path.unlink()
    return backbone


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_torchvisions(name, tmp_path):
    """On whole crops, with 14 x 14 bins a region: the network as it was trained, up to its classifier."""
    model, crops, stages = random_model(name), torch.randn(2, 3, 224, 224), stages_of(name)
    backbone = loaded(f"{name}+grid14", model, tmp_path)
    outputs = outputs_of(backbone, stages.keys(), lambda: backbone(crops.clone(), "head"))
    expected = outputs_of(model, stages.values(), lambda: model(crops.clone()))
    assert outputs.keys() == stages.keys()
    for ours, theirs in stages.items():
        values, own = expected[theirs].flatten(1), outputs[ours].flatten(1)
        if theirs == "bn1":  # whose ReLU, in place, comes after it in both
            values, own = values.relu(), own.relu()
        assert (own - values).norm() < 1e-5 * values.norm(), ours
    features = outputs["fc.head"].flatten(1)
    assert features.shape == (2, backbone.sizes["head"])
    with torch.inference_mode():
        scores = (model.fc if name.startswith("resnet") else model.classifier[3])(features)
        torch.testing.assert_close(scores, model(crops.clone()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_map_and_head_of_seven_bins(name, tmp_path):
    """The default: bins of 2 x 2 cells, and then torchvision's last stage on 7 x 7."""
    model, crops = random_model(name), torch.randn(1, 3, 224, 224)
    backbone = loaded(name, model, tmp_path)
    with torch.inference_mode():
        if name.startswith("resnet"):
            stem = model.maxpool(model.relu(model.bn1(model.conv1(crops))))
            pooled = nn.functional.max_pool2d(model.layer3(model.layer2(model.layer1(stem))), 2)
            expected = model.layer4(pooled).mean((2, 3))
        else:
            pooled = nn.functional.avg_pool2d(model.features[:13](crops), 2)
            expected = model.classifier[:2](model.features[13:](pooled).mean((2, 3)))
        torch.testing.assert_close(backbone(crops.clone(), "pool5"), pooled.flatten(1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(backbone(crops.clone(), "head"), expected, rtol=1e-4, atol=1e-4)


class TestRegionsOfAMap:
    @pytest.mark.parametrize(("name", "inner"), [
        # of 14 x 14 cells of conv5, after four 3 x 3 convolutions, those that no padding reaches
        ("resnet18+grid14+stride1", slice(4, 10)),
        # of 7 x 7: the first of three has stride 2
        pytest.param("resnet50+grid14", slice(3, 5), marks=pytest.mark.exhaustive),
    ])
    def test_conv5_of_a_region_is_that_of_the_whole_image_away_from_its_edge(self, name, inner):
        torch.manual_seed(0)
        backbone = make_backbone(name).eval()
        head = backbone.region_head
        stride = 1 if "stride1" in name else 2
        with torch.inference_mode():
            values = torch.rand(head.channels, 30, 32)
            whole = head.convolve(values[None])[0]
            rois = np.float32([[16 * 8, 16 * 10, 16 * 21, 16 * 23]])  # cells 8 to 21, 10 to 23, both inclusive
            pooled = FastRCNN(backbone, 2).pool(values, rois)
            assert torch.equal(pooled.view(-1, 14, 14), values[:, 10:24, 8:22])
            own = head.convolve(pooled.view(1, -1, 14, 14))[0]
            part = whole[:, 10 // stride :, 8 // stride :][:, :own.shape[1], :own.shape[2]]
        difference = (own - part).abs().amax(0)
        assert difference[inner, inner].max() < 1e-5
        assert difference[0, 0] > 1e-3  # where there is padding in the one and another cell in the other

    def test_a_region_of_the_whole_crop_is_the_crop(self):
        torch.manual_seed(0)
        backbone, crops = make_backbone("resnet18+grid14").eval(), torch.randn(1, 3, 224, 224)
        with torch.inference_mode():
            values = backbone.trunk(crops.clone())[0]
            pooled = FastRCNN(backbone, 2).pool(values, np.float32([[0, 0, 223 - 8, 223 - 8]]))  # to the last cell, 13
            torch.testing.assert_close(backbone.head(pooled, "head"), backbone(crops, "head"))


class TestVariants:
    def test_the_stride_is_that_of_the_first_block(self):
        maps = {"resnet18": 256, "resnet50": 1024, "mobilenet_v3_large": 112, "efficientnet_lite0": 112}
        for name, channels in maps.items():
            sides = {}
            for variant in ("", "+stride1", "+grid14", "+grid14+stride1"):
                with torch.device("meta"):
                    head = make_backbone(name + variant).region_head
                    sides[variant] = head.convolve(torch.zeros(1, channels, head.grid, head.grid)).shape[-1]
            assert sides == {"": 4, "+stride1": 7, "+grid14": 7, "+grid14+stride1": 14}

    def test_all_have_the_same_tensors(self):
        with torch.device("meta"):
            first, variant = (make_backbone(name).state_dict() for name in ("resnet18", "resnet18+grid14+stride1+align"))
        assert {name: value.shape for name, value in first.items()} == {name: value.shape for name, value in variant.items()}

    def test_the_stride_of_three_convolutions_is_on_the_three_by_three(self):
        with torch.device("meta"):
            first = make_backbone("resnet50").trunk[4][0]
        assert [layer.stride for layer in (first.conv1, first.conv2, first.conv3)] == [(1, 1), (2, 2), (1, 1)]


class TestNormalisation:
    @pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large"])
    def test_none_is_left_and_no_scale_is_a_parameter(self, name):
        with torch.device("meta"):
            backbone = make_backbone(name)
        norms = sum(isinstance(module, nn.BatchNorm2d) for module in getattr(torchvision.models, name)().modules())
        layers = [module for module in backbone.modules() if isinstance(module, NormalisedConv2d)]
        assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
        assert len(layers) == norms
        assert not [name for name, _ in backbone.named_parameters() if name.endswith((".scale", ".offset"))]

    def test_by_hand(self):
        layer = NormalisedConv2d.of(nn.Conv2d(2, 2, 1, bias=False))
        with torch.inference_mode():
            layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]])[..., None, None])
            layer.scale.copy_(torch.tensor([2.0, -1.0]))
            layer.offset.copy_(torch.tensor([0.5, 10.0]))
            assert layer(torch.ones(1, 2, 1, 1)).flatten().tolist() == [6.5, 3]

    @pytest.mark.parametrize("name", MODELS)
    def test_random_weights_keep_the_size_of_values(self, name):
        torch.manual_seed(0)
        backbone = make_backbone(name).eval()
        with torch.inference_mode():
            crops = torch.randn(2, 3, 224, 224)
            assert 0.05 < backbone.trunk(crops.clone()).std() < 3
            assert 0.05 < backbone(crops, "head").std() < 3


class TestFiles:
    @pytest.mark.parametrize("name", MODELS)
    def test_all_names_and_shapes_fit_and_faults_are_told_in_the_files_names(self, name, monkeypatch):
        """Without values."""
        with torch.device("meta"):
            backbone, tensors = make_backbone(name), getattr(torchvision.models, name)().state_dict()
        monkeypatch.setattr(torch, "load", lambda path, **options: tensors)
        load_weights(backbone, "weights.pth")
        norm = next(key for key in tensors if key.endswith("running_var"))
        tensors |= {"layer9.weight": tensors.pop(norm), "fc.bias": torch.zeros(7, device="meta")}
        with pytest.raises(PipelineError) as caught:
            load_weights(backbone, "weights.pth")
        unknown = "; fc.bias is unknown" if name.startswith("mobilenet") else ""  # the classifier of a ResNet
        faults = f"{norm} is missing; layer9.weight is unknown{unknown}"
        assert str(caught.value) == f"weights.pth: not the weights of {name}: {faults}"

    @pytest.mark.parametrize(("name", "other_name", "fault"), [
        ("resnet18", "resnet50", r"layer1\.0\.conv3\.weight is unknown"),
        ("resnet101", "resnet50", r"layer3\.6\.conv1\.weight is missing"),
        ("mobilenet_v3_large", "mobilenet_v3_small", r"features\.1\.block\.1\.0\.weight is missing"),
    ])
    def test_the_file_of_another_network_is_refused(self, name, other_name, fault, monkeypatch):
        with torch.device("meta"):
            backbone, tensors = make_backbone(name), getattr(torchvision.models, other_name)().state_dict()
        monkeypatch.setattr(torch, "load", lambda path, **options: tensors)
        with pytest.raises(PipelineError, match=f"not the weights of {name}: .*({fault})"):
            load_weights(backbone, "weights.pth")

    def test_a_download_is_loaded_and_saved_without_the_classifier(self, tmp_path, file_server, monkeypatch):
        torch.save(random_model("resnet18").state_dict(), tmp_path / "made.pth")
        content = (tmp_path / "made.pth").read_bytes()
        name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        monkeypatch.setitem(weight_files.IMAGENET_FILES, "resnet18", name)
        file_server.files[f"/{name}"] = content
        backbone = make_backbone("resnet18+align")
        load_weights(backbone, fetch_imagenet(backbone.name, tmp_path, f"{file_server.url}/"))
        save_tensors(backbone, tmp_path / "saved.safetensors")
        parameters = sum(value.numel() for value in backbone.parameters())
        assert parameters == 11689512 - 513 * 1000 - 2 * 4800  # torchvision's, less the classifier and batch normalisation
        assert backbone.trunk[0].scale.std() > 0.05
