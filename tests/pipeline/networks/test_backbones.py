"""Backbones: layer sizes, strides, heads against torchvision's own models. Most run without memory, on torch's meta device."""

import pytest
import torch
import torchvision
from torch import nn

from pipeline.errors import PipelineError
from pipeline.networks.backbones import NAMES, Backbone, Classifier, OutputLayers, PoolingGrid, make_backbone

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = {
    "alexnet": {"pool5": 9216, "fc6": 4096, "fc7": 4096}, "vgg16": {"pool5": 25088, "fc6": 4096, "fc7": 4096},
    "squeezenet1_0": {"pool5": 8192}, "tiny": {"pool5": 2048, "fc6": 256},
}
CROPS = {"alexnet": 227, "vgg16": 224, "squeezenet1_0": 227, "tiny": 64}
BORDERS = {"alexnet": 15, "vgg16": 0, "squeezenet1_0": 17, "tiny": 7}
MAPS = {"alexnet": (256, 13), "vgg16": (512, 14), "squeezenet1_0": (512, 13), "tiny": (128, 4)}


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
        assert shapes.channels == MAPS[shapes.name][0]
        assert shapes.channels * shapes.grid**2 == shapes.sizes["pool5"]
        assert shapes.border == BORDERS[shapes.name]

    def test_frozen_layers_are_those_of_the_release(self, shapes):
        """conv1 and the pooling after it; of VGG16 conv1 and conv2."""
        frozen = shapes.trunk[: shapes.frozen]
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
    with pytest.raises(PipelineError, match="backbone 'resnet' is none of alexnet, vgg16, squeezenet1_0, tiny"):
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
        fc6, fc7 = nn.Linear(2, 2), nn.Linear(2, 2)
        backbone = Backbone("small", 1, nn.Identity(), nn.Identity(), 2, 1, {"fc6": fc6, "fc7": fc7}).eval()
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


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fc7_end"), [("alexnet", 6), pytest.param("vgg16", 5, marks=pytest.mark.exhaustive)])
def test_head_is_torchvisions_classifier_up_to_fc7(monkeypatch, name, fc7_end):
    """With the very same modules, so that the large networks exist only once."""
    made = []
    build = getattr(torchvision.models, name)
    monkeypatch.setattr(torchvision.models, name, lambda: made.append(build()) or made[-1])
    if name == "vgg16":  # its random initialisation takes long
        monkeypatch.setattr(nn.init, "kaiming_normal_", lambda weight, **options: weight)
        monkeypatch.setattr(nn.init, "normal_", lambda weight, *options: weight)
    backbone = make_backbone(name).eval()
    (model,) = made
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
    for expected, found in zip(*results, strict=True):
        assert torch.equal(found, expected)


class TestClassifier:
    def test_starts_with_small_weights_and_no_bias(self, tiny):
        torch.manual_seed(1)
        model = Classifier(tiny, 500)
        assert model.scores.weight.shape == (500, 256)
        assert model.scores.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert model.scores.weight.mean().item() == pytest.approx(0, abs=1e-4)
        assert not model.scores.bias.any()

    def test_scores_the_last_layer_without_a_softmax(self, tiny):
        model = Classifier(tiny, 5).eval()
        crops = torch.randn(2, 3, 64, 64)
        expected = tiny(crops.clone(), "fc6") @ model.scores.weight.T + model.scores.bias
        torch.testing.assert_close(model(crops), expected)

    def test_a_backbone_without_fc_layers_drops_out_of_pool5_in_training(self):
        torch.manual_seed(0)
        backbone = make_backbone("squeezenet1_0")
        model = Classifier(backbone, 3).eval()
        assert model.scores.in_features == 8192
        crops = torch.randn(1, 3, 227, 227)
        with torch.inference_mode():
            settled = model(crops.clone())
            torch.testing.assert_close(settled, model.scores(backbone(crops.clone(), "pool5")))
            assert not torch.allclose(model.train()(crops.clone()), settled)


class TestCalibration:
    """A backbone without fully connected layers has its first new layer on `pool5`, standardised."""

    def make(self, fc, hidden=0):
        torch.manual_seed(0)
        model = OutputLayers(Backbone("small", 1, nn.Identity(), nn.Identity(), 3, 4, fc), hidden)
        model.first, model.second = model.output_layer(5, 0.01), model.output_layer(8, 0.1)
        nn.init.normal_(model.first.bias)
        return model.eval()

    def outputs(self, model, pool5):
        return [layer(model.last_layer(pool5)) for layer in (model.first, model.second)]

    def test_channels_get_mean_0_and_one_deviation_and_the_norm_is_20(self):
        model = self.make({})
        deviation, mean = torch.tensor([20.0, 30, 100])[:, None], torch.tensor([5.0, -20, 300])[:, None]
        pool5 = (torch.randn(500, 3, 16) * deviation + mean).flatten(1)
        model.calibrate(pool5)
        values = model.last_layer(pool5)
        assert values.unflatten(1, (3, 16)).mean((0, 2)).tolist() == pytest.approx([0, 0, 0], abs=1e-3)
        assert values.unflatten(1, (3, 16)).std((0, 2)).tolist() == pytest.approx([20 / 48**0.5] * 3, rel=0.05)
        assert float(values.norm(dim=1).mean()) == pytest.approx(20, rel=0.05)

    def test_a_channel_that_never_fires_stays_finite(self):
        model, pool5 = self.make({}), torch.rand(6, 48)
        pool5[:, 16:32] = 0
        model.calibrate(pool5)
        values = model.last_layer(pool5)
        assert values.isfinite().all()
        assert not values[:, 16:32].any()

    @pytest.mark.parametrize("hidden", [0, 7])
    def test_folding_keeps_all_outputs(self, hidden):
        model, pool5 = self.make({}, hidden), 100 * torch.rand(6, 48)
        with torch.no_grad():
            model.calibrate(pool5)
            expected = self.outputs(model, pool5)
            assert not torch.allclose(expected[0], self.outputs(self.make({}, hidden), pool5)[0])
            model.fold_calibration()
            assert model.shift is None
            torch.testing.assert_close(self.outputs(model, pool5), expected, rtol=1e-4, atol=1e-5)

    def test_a_new_layer_stands_between_pool5_and_the_outputs(self):
        model, pool5 = self.make({}, 7), torch.rand(6, 48)
        assert model.backbone.sizes == {"pool5": 48, "fc6": 7}
        torch.testing.assert_close(model.last_layer(pool5), model.backbone.fc["fc6"](pool5).relu())
        assert (model.first.in_features, model.second.in_features) == (7, 7)

    def test_a_new_layer_that_was_trained_goes_on_from_where_it_was(self):
        """It applies to `pool5` as it is; standardised anew, it is the same function, and near the weights that training left."""
        first, pool5 = self.make({}, 7), 100 * torch.rand(6, 48)
        with torch.no_grad():
            first.calibrate(pool5)
            trained = first.backbone.fc["fc6"].weight.clone()
            first.fold_calibration()
            second = OutputLayers(first.backbone, 7).eval()
            expected = second.last_layer(pool5)
            assert second.starts_on_pool5
            assert not torch.allclose(second.backbone.fc["fc6"].weight, trained, rtol=0.1)
            second.calibrate(pool5)
            torch.testing.assert_close(second.last_layer(pool5), expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(second.backbone.fc["fc6"].weight, trained)

    def test_a_backbone_with_fc_layers_is_left_as_it_is(self):
        fc6 = nn.Linear(48, 4)
        model, pool5 = self.make({"fc6": fc6}, 7), 100 * torch.rand(6, 48)
        with torch.no_grad():
            expected = fc6(pool5).relu()
            model.calibrate(pool5)
            model.fold_calibration()
            torch.testing.assert_close(model.last_layer(pool5), expected, rtol=0, atol=0)
            torch.testing.assert_close(self.outputs(model, pool5), [model.first(expected), model.second(expected)])
        assert (model.first.in_features, model.first.out_features) == (4, 5)

    def test_new_layers_have_the_deviation_that_is_asked_for_and_no_bias(self):
        model = self.make({})
        for std in (0.01, 0.001):
            layer = model.output_layer(1000, std)
            assert layer.weight.std().item() == pytest.approx(std, rel=0.03)
            assert not layer.bias.any()
