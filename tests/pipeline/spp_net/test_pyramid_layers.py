"""Fully connected layers on the pyramid: what they start as, by hand and against a slow version, and how they are loaded."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.networks.backbones import Backbone, FullyConnected, MapView, PoolingGrid, RegionLayers, make_backbone
from pipeline.spp_net.pyramid_layers import bin_shares, put_on_pyramid, pyramid_backbone, pyramid_weights
from pipeline.spp_net.spatial_pyramid import pyramid_size

pytestmark = pytest.mark.usefixtures("one_thread")


def slow_weights(weight, channels, grid, levels):
    """One weight at a time, from the areas that bins share."""
    level = grid if grid in levels else max(levels)
    result = np.zeros((len(weight), channels * sum(n * n for n in levels)))
    start = channels * sum(n * n for n in levels[: levels.index(level)])

    def shared(bin_of_grid, bin_of_level):
        ends = min((bin_of_grid + 1) / grid, (bin_of_level + 1) / level)
        return max(0, ends - max(bin_of_grid / grid, bin_of_level / level)) * grid

    for h, c, i, j, y, x in np.ndindex(len(weight), channels, grid, grid, level, level):
        place = start + (y * level + x) * channels + c
        result[h, place] += weight[h, (c * grid + i) * grid + j] * shared(i, y) * shared(j, x)
    return result


class TestStart:
    def test_shares_by_hand(self):
        third = 1 / 3
        expected = [[2 * third, third, 0, 0, 0, 0], [0, third, 2 * third, 0, 0, 0], [0, 0, 0, 2 * third, third, 0],
                    [0, 0, 0, 0, third, 2 * third]]
        np.testing.assert_allclose(bin_shares(4, 6), expected, atol=1e-12)
        np.testing.assert_allclose(bin_shares(4, 2), [[1, 0], [1, 0], [0, 1], [0, 1]], atol=1e-12)
        np.testing.assert_allclose(bin_shares(3, 3), np.eye(3), atol=1e-12)

    @pytest.mark.parametrize(("grid", "levels"), [(4, (1, 2, 3, 6)), (7, (1, 2, 6)), (3, (1, 2, 3, 6)), (2, (3, 1)), (3, (1,))])
    def test_weights_are_the_slow_version(self, grid, levels):
        weight = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 2 * grid * grid)))
        weights = pyramid_weights(weight, grid, levels)
        np.testing.assert_allclose(weights, slow_weights(weight.numpy(), 2, grid, levels), atol=1e-12)

    @pytest.mark.parametrize("levels", [(1, 4), (4, 2, 1), (1, 2, 4, 6)])
    def test_with_a_level_like_the_grid_it_is_the_layer_as_trained(self, levels):
        """The rows of `pool5` have channel after channel, those of a level bin after bin."""
        torch.manual_seed(0)
        backbone = make_backbone("tiny").eval()
        pool5 = torch.rand(5, 128, 4, 4)
        expected = backbone.head(pool5.flatten(1), "fc6")
        put_on_pyramid(backbone, levels)
        parts = [pool5.permute(0, 2, 3, 1).flatten(1) if n == 4 else torch.rand(5, 128 * n * n) for n in levels]
        torch.testing.assert_close(backbone.head(torch.cat(parts, dim=1), "fc6"), expected)

    def test_on_an_even_region_it_is_the_layer_as_trained_whatever_the_levels(self):
        torch.manual_seed(0)
        backbone = make_backbone("tiny").eval()
        channels = torch.rand(5, 128)
        expected = backbone.head(channels.repeat_interleave(16, dim=1), "fc6")
        put_on_pyramid(backbone, (1, 2, 3, 6))
        torch.testing.assert_close(backbone.head(channels.repeat(1, 50), "fc6"), expected, atol=1e-4, rtol=1e-4)

    def test_later_layers_stay(self):
        regions = RegionLayers(32, 2, PoolingGrid(2), {"fc6": FullyConnected(12, 5), "fc7": FullyConnected(5, 4)})
        backbone = Backbone("two", nn.Sequential(nn.Conv2d(3, 3, 1)), MapView(3), regions)
        before, bias = backbone.fc["fc7"], backbone.fc["fc6"].bias
        put_on_pyramid(backbone, (1, 3))
        assert backbone.fc["fc7"] is before
        assert backbone.fc["fc6"].bias is bias
        assert dict(backbone.sizes) == {"pool5": 30, "fc6": 5, "fc7": 4}
        assert backbone.head(torch.rand(6, 30), "fc7").shape == (6, 4)


def test_a_backbone_without_such_layers_is_an_error():
    with torch.device("meta"):
        backbone = make_backbone("squeezenet1_0")
    with pytest.raises(PipelineError, match="squeezenet1_0 has no fully connected layers"):
        put_on_pyramid(backbone, (1, 2))


class TestLoading:
    @pytest.fixture
    def tensors(self):
        backbone = make_backbone("tiny")
        put_on_pyramid(backbone, (1, 2))
        return backbone.state_dict()

    def test_gives_back_what_was_saved(self, tensors):
        restored = pyramid_backbone("tiny", (1, 2), tensors, "file").state_dict()
        assert restored.keys() == tensors.keys()
        assert all(torch.equal(restored[name], value) for name, value in tensors.items())

    @pytest.mark.parametrize("levels", [(1, 3), tuple(range(1, 101))])
    def test_other_levels_are_an_error_before_memory_is_taken(self, tensors, levels):
        expected = rf"^file: .* of shape \(256, 640\), expected \(256, {pyramid_size(128, levels)}\)$"
        with pytest.raises(PipelineError, match=expected):
            pyramid_backbone("tiny", levels, tensors, "file")

    def test_a_network_on_crops_is_an_error(self):
        expected = r"^file: not layers on a pyramid of levels 1, 2: fc.fc6.weight is of shape \(256, 2048\)"
        with pytest.raises(PipelineError, match=expected):
            pyramid_backbone("tiny", (1, 2), make_backbone("tiny").state_dict(), "file")

    def test_a_missing_layer_is_an_error(self, tensors):
        del tensors["fc.fc6.weight"]
        with pytest.raises(PipelineError, match=r"^file: .* fc.fc6.weight is missing, expected \(256, 640\)$"):
            pyramid_backbone("tiny", (1, 2), tensors, "file")
