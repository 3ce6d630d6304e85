"""Sizes, crop offsets and kernels: the release's numbers, slow versions, and cells that lie where the coordinates say."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.networks.backbones import make_backbone
from pipeline.segmentation.encoder import READINGS, map_coordinates, map_layers
from pipeline.segmentation.geometry import Coordinates, Layer, Refinement, bilinear_kernel, coordinates, layer_of, reach

PIXELS = Coordinates()
BACKBONES = ("tiny", "squeezenet1_0", "efficientnet_lite0")


@pytest.fixture(scope="module")
def backbones():
    names = (*BACKBONES, "alexnet", "vgg16")
    with torch.device("meta"):  # shapes are enough
        return {name: make_backbone(name) for name in names}


def released_offsets(backbone):
    """The crop offsets of the release's three networks, by the names of the oracle."""
    maps = {stride: map_coordinates(backbone, stride) for stride in (32, 16, 8)}
    to_16, to_8 = Refinement.between(maps[32], maps[16]), None
    sum_16 = Coordinates(16, maps[16].offset - 16 * to_16.crop)
    to_8 = Refinement.between(sum_16, maps[8])
    sum_8 = Coordinates(8, maps[8].offset - 8 * to_8.crop)
    return {
        "32s_score": Refinement.between(maps[32], PIXELS).crop, "16s_pool4": -to_16.crop,
        "16s_score": Refinement.between(sum_16, PIXELS).crop, "8s_pool4": -to_16.crop, "8s_pool3": -to_8.crop,
        "8s_score": Refinement.between(sum_8, PIXELS).crop,
    }


class TestRelease:
    def test_offsets_by_hand(self, backbones):
        """The numbers in voc-fcn32s, 16s, 8s and voc-fcn-alexnet."""
        expected = {"32s_score": 19, "16s_pool4": 5, "16s_score": 27, "8s_pool4": 5, "8s_pool3": 9, "8s_score": 31}
        assert released_offsets(backbones["vgg16"]) == expected
        alexnet = Refinement.between(map_coordinates(backbones["alexnet"], 32), PIXELS)
        assert (alexnet.kernel, alexnet.crop) == (63, 18)

    def test_offsets(self, backbones, oracle):
        values = oracle("fcn_geometry.npz")
        ours = released_offsets(backbones["vgg16"])
        ours["alexnet_score"] = released_offsets(backbones["alexnet"])["32s_score"]
        assert [ours[name] for name in values["offset_names"].tolist()] == values["offsets"].tolist()

    def test_kernels(self, oracle):
        values = oracle("fcn_geometry.npz")
        for side in values["kernel_sizes"].tolist():
            np.testing.assert_allclose(bilinear_kernel(side), values[f"surgery_{side}"], atol=1e-12)

    @pytest.mark.parametrize(("name", "wanted"), [
        ("vgg16", ["conv1", "pool1", "pool2", "pool3", "pool4", "pool5", "score_fr"]),
        ("alexnet", ["conv1", "pool1", "pool2", "pool5", "score_fr"]),
    ])
    def test_sizes_of_maps(self, backbones, oracle, name, wanted):
        values = oracle("fcn_geometry.npz")
        short = name.removesuffix("16")
        names = values[f"{short}_layer_names"].tolist()
        for size, expected in zip(values["image_sizes"], values[f"{short}_sizes"]):
            for side, column in zip(size.tolist(), expected):
                ours = sizes_by_name(backbones[name], side)
                assert [ours[each] for each in wanted] == [int(column[names.index(each)]) for each in wanted]

    def test_sizes_of_upsampled_scores(self, backbones, oracle):
        """Before they are cropped: f (n - 1) + k."""
        values = oracle("fcn_geometry.npz")
        for size, expected in zip(values["image_sizes"], values["upscore_sizes"]):
            for side, column in zip(size.tolist(), expected.tolist()):
                n = sizes_by_name(backbones["vgg16"], side)["score_fr"]
                up_2 = 2 * (n - 1) + 4
                up_pool4 = 2 * (up_2 - 1) + 4
                ours = [32 * (n - 1) + 64, up_2, 16 * (up_2 - 1) + 32, up_pool4, 8 * (up_pool4 - 1) + 16]
                assert ours == column


def sizes_by_name(backbone, side):
    """The side of each named map for an image of `side` pixels."""
    modules = [*backbone.trunk, backbone.pool]
    size, pools, names = side + 2 * READINGS[backbone.name].border, 0, {}
    pool_names = {"vgg16": ("pool1", "pool2", "pool3", "pool4", "pool5"), "alexnet": ("pool1", "pool2", "pool5")}[backbone.name]
    for module in modules:
        size = layer_of(module).size(size, ceil=isinstance(module, nn.MaxPool2d))
        if isinstance(module, nn.Conv2d):
            names.setdefault("conv1", size)
        if isinstance(module, nn.MaxPool2d):
            names[pool_names[pools]], pools = size, pools + 1
    names["score_fr"] = size - backbone.grid + 1
    return names


class TestLayer:
    @pytest.mark.parametrize("layer", [Layer(2, 2), Layer(3, 2), Layer(3, 1, 1), Layer(5, 2, 2), Layer(3, 2, 1), Layer(11, 4, 2)])
    @pytest.mark.parametrize("ceil", [False, True])
    def test_size_is_torchs(self, layer, ceil):
        for cells in range(layer.kernel, 30):
            if layer.padding <= layer.kernel // 2:
                pool = nn.MaxPool2d(layer.kernel, layer.stride, layer.padding, ceil_mode=ceil)
                assert layer.size(cells, ceil) == pool(torch.zeros(1, 1, cells, cells)).shape[2]

    def test_reach_by_hand(self):
        """3 x 3, pooling 2 x 2, 3 x 3: a cell sees 3 + 1 + 4 = 8 pixels."""
        assert reach([Layer(3, 1, 1), Layer(2, 2), Layer(3, 1, 1)]) == 4

    def test_coordinates_by_hand(self):
        assert coordinates([Layer(3, 1, 1), Layer(2, 2), Layer(3, 2)], border=4) == Coordinates(4, -4 + 0.5 + 2)


class TestWhereCellsLie:
    """A cell's gradient with respect to the image is where its coordinates say."""

    @pytest.mark.parametrize("name", BACKBONES)
    @pytest.mark.parametrize("stride", [32, 16, 8])
    def test_cells_are_centred_on_their_pixels(self, name, stride):
        """With weights of 1 and mean poolings, a cell's gradient is symmetric about its centre."""
        backbone = make_backbone(name)
        layers, border = map_layers(backbone, stride), READINGS[name].border
        place = map_coordinates(backbone, stride)
        side = 1184  # more than the widest field
        image = torch.zeros(side, requires_grad=True, dtype=torch.float64)
        values = nn.functional.pad(image, (border, -(border + side) % 32 if backbone.view.whole_cells else border))[None, None]
        for layer in layers:
            values = nn.functional.conv1d(
                values, torch.ones(1, 1, layer.kernel, dtype=torch.float64), stride=layer.stride, padding=layer.padding
            ) / layer.kernel
        cell = values.shape[2] // 2
        values[0, 0, cell].backward()
        weights = image.grad.numpy()
        centre = (weights * np.arange(side)).sum() / weights.sum()
        assert centre == pytest.approx(place.stride * cell + place.offset, abs=1e-6)
        seen = np.flatnonzero(weights)
        assert max(centre - seen[0], seen[-1] - centre) <= reach(layers)

    @pytest.mark.parametrize("name", BACKBONES)
    def test_layers_are_those_of_the_modules(self, name):
        """The padding and stride that coordinates are made from give the size of the real map."""
        backbone = make_backbone(name).eval()
        for side in (96, 160):
            with torch.no_grad():
                real = backbone.trunk(torch.zeros(1, 3, side, side)).shape[2]
            size = side
            for layer, module in zip(map(layer_of, backbone.trunk), backbone.trunk):
                odd = layer.stride - 1 if backbone.view.whole_cells else 0  # TensorFlow's SAME has it at the end
                ceil = isinstance(module, nn.MaxPool2d) and module.ceil_mode
                size = layer.size(size + odd, ceil)
            assert size == real


class TestRefinement:
    def test_even_and_odd_kernels(self):
        assert Refinement(2, 0.5).kernel == 4
        assert Refinement(2, 1.0).kernel == 3

    def test_no_kernel_fits_a_quarter(self):
        with pytest.raises(PipelineError, match="no bilinear kernel"):
            Refinement(2, 0.25)

    @pytest.mark.parametrize("refinement", [Refinement(2, 0.5), Refinement(2, 10.5), Refinement(4, 3.0), Refinement(2, -1.5)])
    def test_weights_are_the_kernels_line(self, refinement):
        """A row of weights for each fine cell: the kernel where the transposed convolution puts it."""
        coarse, fine = 3, 40
        line = bilinear_kernel(refinement.kernel)
        line = line[len(line) // 2] / line[len(line) // 2].max() * (1 - (refinement.kernel % 2 == 0) / (2 * refinement.factor))
        expected = np.zeros((fine, coarse))
        for j in range(coarse):
            for k, weight in enumerate(line):
                cell = refinement.factor * j + k - refinement.crop
                if 0 <= cell < fine:
                    expected[cell, j] = weight
        np.testing.assert_allclose(refinement.weights(coarse, 0, fine), expected, atol=1e-12)
        reached = np.flatnonzero(expected.sum(axis=1))
        assert refinement.reached(coarse, fine) == (reached[0], reached[-1] + 1)

    def test_between_is_linear_interpolation(self):
        """A ramp over the image stays a ramp, on the same pixels."""
        coarse, fine = Coordinates(8, 3.5), Coordinates(2, 0.5)
        refinement = Refinement.between(coarse, fine)
        ramp = 8 * np.arange(6) + 3.5
        first, end = 4, 20
        np.testing.assert_allclose(refinement.weights(6, first, end) @ ramp, 2 * np.arange(first, end) + 0.5)
