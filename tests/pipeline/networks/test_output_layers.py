"""New layers on a backbone: their first weights, and standardised `pool5` where no layer was trained on it."""

import pytest
import torch
from torch import nn

from pipeline.networks.backbones import Backbone, FullyConnected, MapView, RegionLayers, make_backbone
from pipeline.networks.output_layers import Classifier, OutputLayers
from pipeline.networks.standard import Standard, channel_scale

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return make_backbone("tiny").eval()


class TestStandard:
    def test_by_hand(self):
        """Two channels of two values in a row: means 2 and 10, deviations 2 and 0."""
        values = torch.tensor([[0.0, 4, 10, 10], [4, 0, 10, 10]])
        standard = Standard.over(values, 2, norm=2.0)
        deviation = 16**0.5 / 3**0.5  # of 0, 4, 4, 0: squares of 2, by n - 1
        expected = 1 / (deviation + 0.005 * deviation), 1 / (0.005 * deviation)
        torch.testing.assert_close(standard.scale, torch.tensor([expected[0], expected[0], expected[1], expected[1]]))
        assert standard.shift.tolist() == [2, 2, 10, 10]
        torch.testing.assert_close(standard(values), (values - standard.shift) * standard.scale)

    def test_the_least_deviation_keeps_nothing_finite(self):
        assert channel_scale(torch.zeros(2), 1.0, least=1e-12).isfinite().all()

    def test_unfolding_is_the_inverse_of_folding(self):
        torch.manual_seed(0)
        values, layer = 50 * torch.rand(9, 12), nn.Linear(12, 3)
        standard, weight, bias = Standard.over(values, 3, norm=20.0), layer.weight.clone(), layer.bias.clone()
        expected = layer(standard(values))
        standard.fold_into(layer)
        torch.testing.assert_close(layer(values), expected, rtol=1e-4, atol=1e-4)
        standard.unfold_from(layer)
        torch.testing.assert_close(layer.weight, weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.bias, bias, rtol=1e-4, atol=1e-3)


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

    def make(self, layers, hidden=0):
        torch.manual_seed(0)
        regions = RegionLayers(1, 4, nn.Identity(), layers)
        model = OutputLayers(Backbone("small", nn.Identity(), MapView(3), regions), hidden)
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
            assert model.standard is None
            torch.testing.assert_close(self.outputs(model, pool5), expected, rtol=1e-4, atol=1e-5)

    def test_a_new_layer_stands_between_pool5_and_the_outputs(self):
        model, pool5 = self.make({}, 7), torch.rand(6, 48)
        assert model.backbone.sizes == {"pool5": 48, "fc6": 7}
        torch.testing.assert_close(model.last_layer(pool5), model.backbone.fc["fc6"](pool5))
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
        fc6 = FullyConnected(48, 4).eval()
        model, pool5 = self.make({"fc6": fc6}, 7), 100 * torch.rand(6, 48)
        with torch.no_grad():
            expected = fc6(pool5)
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
