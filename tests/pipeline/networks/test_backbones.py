"""Backbones: layer sizes, strides, heads against torchvision's own models. Most run without memory, on torch's meta device."""

import pytest
import torch
import torchvision
from torch import nn

from pipeline.errors import PipelineError
from pipeline.networks.backbones import (
    Backbone,
    FullyConnected,
    MapView,
    PoolingGrid,
    RegionLayers,
    make_backbone,
)
from pipeline.networks.variants import CONVOLUTIONAL, NAMES

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = {
    "alexnet": {"pool5": 9216, "fc6": 4096, "fc7": 4096}, "vgg16": {"pool5": 25088, "fc6": 4096, "fc7": 4096},
    "squeezenet1_0": {"pool5": 8192}, "efficientnet_lite0": {"pool5": 5488, "head": 1280},
    "mobilenet_v3_large": {"pool5": 5488, "head": 1280}, "resnet18": {"pool5": 12544, "head": 512},
    "resnet50": {"pool5": 50176, "head": 2048}, "resnet101": {"pool5": 50176, "head": 2048}, "tiny": {"pool5": 2048, "fc6": 256},
}
CROPS = dict.fromkeys(NAMES, 224) | {"alexnet": 227, "squeezenet1_0": 227, "tiny": 64}
BORDERS = dict.fromkeys(NAMES, 0) | {"alexnet": 15, "squeezenet1_0": 17, "efficientnet_lite0": 15, "tiny": 7}
MAPS = {
    "alexnet": (256, 13), "vgg16": (512, 14), "squeezenet1_0": (512, 13), "efficientnet_lite0": (112, 14),
    "mobilenet_v3_large": (112, 14), "resnet18": (256, 14), "resnet50": (1024, 14), "resnet101": (1024, 14), "tiny": (128, 4),
}


@pytest.fixture(params=NAMES)
def shapes(request):
    """Each backbone without values."""
    with torch.device("meta"):
        return make_backbone(request.param).eval()


class TestShapes:
    def test_sizes_and_order_of_the_layers(self, shapes):
        assert list(shapes.sizes.items()) == list(SIZES[shapes.name].items())
        assert shapes.last_layer == list(SIZES[shapes.name])[-1]
        assert shapes.crop_size == CROPS[shapes.name]

    def test_pool5_is_channels_times_grid_and_the_border_is_known(self, shapes):
        assert shapes.view.channels == MAPS[shapes.name][0]
        assert shapes.view.channels * shapes.grid**2 == shapes.sizes["pool5"]
        assert shapes.view.border == BORDERS[shapes.name]

    def test_frozen_layers_are_those_of_the_release(self, shapes):
        """conv1 and the pooling after it; of VGG16 conv1 and conv2."""
        frozen = shapes.trunk[: shapes.frozen]
        if shapes.name in CONVOLUTIONAL:  # the first convolution and the blocks before stride 8
            first = shapes.trunk[: shapes.frozen](torch.zeros(1, 3, 64, 64, device="meta"))
            assert first.shape[-1] == 16
            assert shapes.trunk[shapes.frozen](first).shape[-1] == 8
            return
        convolutions = sum(isinstance(module, nn.Conv2d) for module in frozen)
        assert convolutions == {"alexnet": 1, "vgg16": 4, "squeezenet1_0": 1, "tiny": 1}[shapes.name]
        last = frozen[-2:] if shapes.name == "tiny" else frozen[-1:]  # which has its ReLU after the pooling
        assert any(isinstance(module, nn.MaxPool2d) for module in last)

    def test_every_layer_is_as_large_as_it_says(self, shapes):
        crops = torch.zeros(2, 3, shapes.crop_size, shapes.crop_size, device="meta")
        for layer, size in shapes.sizes.items():
            assert shapes(crops, layer).shape == (2, size)

    def test_the_trunk_has_stride_16(self, shapes):
        channels, side = MAPS[shapes.name]
        size = shapes.crop_size
        assert shapes.trunk(torch.zeros(1, 3, size, size, device="meta")).shape == (1, channels, side, side)
        assert shapes.trunk(torch.zeros(1, 3, size + 160, size + 320, device="meta")).shape == (1, channels, side + 10, side + 20)

    def test_a_layer_that_is_not_there_is_refused_with_those_that_are(self, shapes):
        with pytest.raises(PipelineError) as caught:
            shapes.check_layer("fc8")
        assert str(caught.value) == f"backbone {shapes.name} has no layer 'fc8'; it has {', '.join(SIZES[shapes.name])}"
        with pytest.raises(PipelineError, match="has no layer 'fc8'"):
            shapes.head(torch.zeros(1, shapes.sizes["pool5"], device="meta"), "fc8")


def test_an_unknown_backbone_is_refused():
    with pytest.raises(PipelineError, match=r"backbone 'resnet' is none of alexnet, vgg16, .*, tiny"):
        make_backbone("resnet")


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return make_backbone("tiny").eval()


class TestHead:
    def test_by_hand(self, tiny):
        pool5 = torch.randn(3, 2048)
        expected = torch.clamp(pool5 @ tiny.fc["fc6"].weight.T + tiny.fc["fc6"].bias, min=0)
        torch.testing.assert_close(tiny.head(pool5, "fc6"), expected)
        assert tiny.head(pool5, "pool5") is pool5

    def test_each_layer_is_made_from_the_one_before_by_hand(self):
        fc6, fc7 = FullyConnected(2, 2), FullyConnected(2, 2)
        regions = RegionLayers(1, 1, nn.Identity(), {"fc6": fc6, "fc7": fc7})
        backbone = Backbone("small", nn.Identity(), MapView(2), regions).eval()
        with torch.inference_mode():
            for linear, weight in ((fc6, [[1.0, 2.0], [-1.0, 0.0]]), (fc7, [[3.0, 0.0], [1.0, 1.0]])):
                linear.weight.copy_(torch.tensor(weight))
                linear.bias.copy_(torch.tensor([0.5, -0.5]))
            pool5 = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
            assert backbone.head(pool5, "pool5").tolist() == [[1, 1], [-1, -1]]
            assert backbone.head(pool5, "fc6").tolist() == [[3.5, 0], [0, 0.5]]
            assert backbone.head(pool5, "fc7").tolist() == [[11, 3], [0.5, 0]]

    def test_forward_is_trunk_pool_and_head(self, tiny):
        crops = torch.randn(2, 3, 64, 64)
        pool5 = nn.functional.adaptive_max_pool2d(tiny.trunk(crops.clone()), 4).reshape(2, -1)
        torch.testing.assert_close(tiny(crops.clone(), "pool5"), pool5, rtol=0, atol=0)
        torch.testing.assert_close(tiny(crops.clone(), "fc6"), tiny.head(pool5, "fc6"), rtol=0, atol=0)

    def test_pool5_is_as_wide_for_larger_crops(self, tiny):
        assert tiny(torch.randn(1, 3, 128, 96), "pool5").shape == (1, 2048)

    def test_dropout_follows_the_layer_in_training_alone(self, tiny):
        pool5 = torch.randn(4, 2048)
        settled = tiny.head(pool5, "fc6")
        torch.testing.assert_close(tiny.head(pool5, "fc6"), settled, rtol=0, atol=0)
        dropped = tiny.train().head(pool5, "fc6")
        stays = dropped != 0
        torch.testing.assert_close(dropped[stays], 2 * settled[stays])
        assert 0.4 < stays.sum() / (settled > 0).sum() < 0.6

    def test_the_same_seed_gives_the_same_weights(self, tiny):
        torch.manual_seed(0)
        again = make_backbone("tiny").state_dict()
        assert all(torch.equal(value, again[name]) for name, value in tiny.state_dict().items())


class Stage(nn.Sequential):
    """Stands for a stage of a residual network that is run for each region."""

    out_features = 6

    def __init__(self):
        super().__init__(nn.Unflatten(1, (4, 2, 2)), nn.Conv2d(4, 6, 2), nn.BatchNorm2d(6), nn.Flatten())


class TestOtherNetworks:
    def test_a_trunk_alone_has_no_layers_of_regions(self):
        backbone = Backbone("trunk", nn.Conv2d(3, 4, 8, stride=8), MapView(4, stride=8))
        assert (backbone.view.stride, dict(backbone.sizes), backbone.has_own_layers) == (8, {}, False)
        assert backbone.trunk(torch.zeros(1, 3, 16, 24)).shape == (1, 4, 2, 3)
        with pytest.raises(PipelineError, match="has no layer 'pool5'"):
            backbone.check_layer("pool5")

    def test_a_stage_of_convolutions_stands_in_place_of_fully_connected_layers(self):
        backbone = Backbone("residual", nn.Identity(), MapView(4), RegionLayers(1, 2, nn.Identity(), {"stage": Stage()}))
        assert dict(backbone.sizes) == {"pool5": 16, "stage": 6}
        pool5, convolution = torch.randn(3, 16), backbone.eval().fc["stage"][1]
        expected = convolution(pool5.view(3, 4, 2, 2)).flatten(1) / (1 + 1e-5) ** 0.5  # by the statistics 0 and 1
        torch.testing.assert_close(backbone.head(pool5, "stage"), expected)

    def test_batch_normalisation_keeps_its_statistics_in_training(self):
        backbone = Backbone("residual", nn.BatchNorm2d(3), MapView(3)).train()
        backbone.trunk(torch.randn(2, 3, 4, 4) + 5)
        assert backbone.training
        assert not backbone.trunk.running_mean.any()

    def test_a_fully_connected_layer_takes_the_weights_themselves(self):
        linear = nn.Linear(3, 2)
        layer = FullyConnected.of(linear)
        assert layer.weight is linear.weight
        torch.testing.assert_close(layer.eval()(torch.ones(1, 3)), linear(torch.ones(1, 3)).relu())

    def test_layers_that_are_added_are_not_its_own(self):
        backbone = Backbone("small", nn.Identity(), MapView(2), RegionLayers(1, 1, nn.Identity()))
        backbone.add_layer("fc6", FullyConnected(2, 5))
        assert (backbone.last_layer, backbone.sizes["fc6"], backbone.has_own_layers) == ("fc6", 5, False)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fc7_end"), [("alexnet", 6), pytest.param("vgg16", 5, marks=pytest.mark.exhaustive)])
def test_head_is_torchvisions_classifier_up_to_fc7(monkeypatch, name, fc7_end):
    """With the very same modules, so that the large networks exist only once."""
    models = []
    build = getattr(torchvision.models, name)
    monkeypatch.setattr(torchvision.models, name, lambda: models.append(build()) or models[-1])
    if name == "vgg16":  # its random initialisation takes long
        monkeypatch.setattr(nn.init, "kaiming_normal_", lambda weight, **options: weight)
        monkeypatch.setattr(nn.init, "normal_", lambda weight, *options: weight)
    backbone = make_backbone(name).eval()
    (model,) = models
    model.eval()
    pool5 = torch.rand(2, backbone.sizes["pool5"])
    with torch.inference_mode():
        torch.testing.assert_close(backbone.head(pool5, "fc7"), model.classifier[:fc7_end](pool5))
        side = backbone.crop_size
        crops = torch.randn(1, 3, side, side)
        expected = torch.flatten(model.avgpool(model.features(crops)), 1)
        torch.testing.assert_close(backbone(crops, "pool5"), expected)


@pytest.mark.parametrize("size", [13, 4, 3])  # bins overlap, are cells, share cells
def test_pooling_grid_on_other_devices_is_the_same(size):
    maps = torch.randint(-9, 9, (2, 3, size, size), generator=torch.Generator().manual_seed(0)).float().requires_grad_()
    pool, results = PoolingGrid(4), []
    for pooled in pool(maps), pool.by_indexing(maps):
        (grad,) = torch.autograd.grad((pooled * torch.arange(pooled.numel()).view_as(pooled)).sum(), maps)
        results.append((pooled, grad))
    for expected, value in zip(*results, strict=True):
        assert torch.equal(value, expected)
