"""Detectors as modules: frozen batch normalisation, what is trained, restoring."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from pipeline.errors import PipelineError
from pipeline.later_detectors import names
from pipeline.later_detectors.network import Design, LaterDetector, restore_detector
from pipeline.later_detectors.training import groups_of, loss_names

CHAINS = [pytest.param(chain, marks=[pytest.mark.exhaustive] if chain == "mask-rcnn" else []) for chain in names.ARCHITECTURES]


def small(chain: str) -> LaterDetector:
    torch.manual_seed(0)
    return LaterDetector(Design(chain, "tiny", 300 if chain == "ssd" else 96, 16, 8), 4)


@pytest.mark.parametrize("chain", CHAINS)
def test_restored_detector_gives_the_same(chain):
    detector, images = small(chain).eval(), [torch.rand(3, 80, 110)]
    restored = restore_detector(detector.state_dict(), detector.design, "file").eval()
    assert restored.num_classes == 3
    with torch.no_grad():
        first, second = detector(images)[0], restored(images)[0]
    for name, values in first.items():
        torch.testing.assert_close(values, second[name], rtol=0, atol=0)


def test_tensors_that_do_not_fit():
    tensors = small("ssd").state_dict()
    with pytest.raises(PipelineError, match="file: not the weights of ssd: num_outputs is missing"):
        restore_detector({}, Design("ssd", "tiny", 300, 16), "file")
    with pytest.raises(PipelineError, match="no count of classes"):
        restore_detector({**tensors, "num_outputs": torch.tensor(1e9)}, Design("ssd", "tiny", 300, 16), "file")
    with pytest.raises(PipelineError, match=r"file: .* has shape .*, expected"):
        restore_detector(tensors, Design("ssd", "tiny", 300, 24), "file")


def test_first_layers_of_our_trunk_are_frozen():
    detector = small("retinanet")
    trained = {name for name, value in detector.named_parameters() if value.requires_grad}
    assert "network.backbone.maps.trunk.0.weight" not in trained
    assert "network.backbone.maps.trunk.3.weight" in trained


def test_new_layers_learn_faster():
    detector = small("ssd")
    groups = groups_of(detector, 3.0)
    factors = {id(parameter): group.factor for group in groups for parameter in group.parameters}
    by_name = dict(detector.named_parameters())
    assert factors[id(by_name["network.backbone.maps.trunk.3.weight"])] == 1
    assert factors[id(by_name["network.backbone.maps.trunk.3.bias"])] == 2
    assert factors[id(by_name["network.backbone.extra.0.0.weight"])] == 3
    assert factors[id(by_name["network.head.regression_head.module_list.0.bias"])] == 6
    assert len(factors) == sum(value.requires_grad for value in by_name.values())


@pytest.mark.parametrize("model", [
    "fcos_resnet50_fpn",
    *(pytest.param(model, marks=pytest.mark.exhaustive) for model in names.MODELS if model != "fcos_resnet50_fpn"),
])
def test_models_of_torchvision(model):
    """Each is built without a download, has frozen batch normalisation, and the losses that we name."""
    detector = LaterDetector(Design(f"torchvision:{model}", names.PAPER, 0 if "ssd" in model else 64), 3).train()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in detector.modules())
    target = {
        "boxes": torch.tensor([[5.0, 5, 40, 40]]), "labels": torch.tensor([1]), "masks": torch.ones(1, 64, 64, dtype=torch.uint8),
    }
    with torch.no_grad():
        losses = detector([torch.rand(3, 64, 64)] * 2, [target] * 2)
    assert losses.keys() == set(loss_names(detector))


def test_regions_of_the_papers_trunk():
    detector = LaterDetector(Design("torchvision:fasterrcnn_mobilenet_v3_large_fpn", names.PAPER, 0, regions=32), 3)
    assert detector.network.roi_heads.fg_bg_sampler.batch_size_per_image == 32


def test_sizes_that_a_detector_cannot_have():
    with pytest.raises(PipelineError, match="its images have one size; give --detector-size 0"):
        LaterDetector(Design("torchvision:ssd300_vgg16", names.PAPER, 512), 3)
    with pytest.raises(PipelineError, match="images of 16 pixels are too small; give 32 or more"):
        LaterDetector(Design("retinanet", "tiny", 16), 3)


def test_all_models_are_known():
    models = torchvision.models.list_models(module=torchvision.models.detection)
    assert set(names.MODELS) == set(models) - {"keypointrcnn_resnet50_fpn"}


@pytest.mark.exhaustive
def test_normalisation_is_the_same_bits_after_training():
    detector = LaterDetector(Design("retinanet", names.PAPER, 64), 3).train()
    norms = {name: module for name, module in detector.named_modules() if isinstance(module, FrozenBatchNorm2d)}
    before = {name: [value.clone() for value in module.state_dict().values()] for name, module in norms.items()}
    target = {"boxes": torch.tensor([[5.0, 5, 40, 40]]), "labels": torch.tensor([1])}
    optimizer = torch.optim.SGD([value for value in detector.parameters() if value.requires_grad], 1e-6, weight_decay=0.1)
    body = detector.network.backbone.body
    first, fourth = body.layer1[0].conv1.weight.clone(), body.layer4[0].conv1.weight.clone()
    sum(detector([torch.rand(3, 64, 64)], [target]).values()).backward()
    optimizer.step()
    assert len(norms) == 53
    for name, module in norms.items():
        for old, new in zip(before[name], module.state_dict().values(), strict=True):
            assert torch.equal(old, new), name
    assert torch.equal(body.layer1[0].conv1.weight, first)
    assert not torch.equal(body.layer4[0].conv1.weight, fourth)


@pytest.mark.parametrize(("chain", "expected"), [
    ("ssd", True), ("torchvision:fcos_resnet50_fpn", True), ("torchvision:keypointrcnn_resnet50_fpn", False),
    ("torchvision:", False), ("fcos_resnet50_fpn", False), ("rcnn", False),
])
def test_names(chain, expected):
    assert names.is_later(chain) is expected


def test_which_have_masks():
    assert [chain for chain in names.ARCHITECTURES if names.has_masks(chain)] == ["mask-rcnn"]
    assert names.has_masks("torchvision:maskrcnn_resnet50_fpn_v2")
