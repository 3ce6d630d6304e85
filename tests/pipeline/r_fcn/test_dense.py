"""Layers of regions over whole maps: where the strided ones have a value, the dense ones have the same."""

import copy

import pytest
import torch
from torch import nn

from pipeline.networks.backbones import make_backbone
from pipeline.r_fcn.dense import run_densely

pytestmark = pytest.mark.usefixtures("one_thread")


def make_layers():
    """Two branches with stride 2, as a block of a ResNet has them, and a convolution after them."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.Conv2d(5, 4, 3, padding=1)
            self.downsample = nn.Conv2d(3, 4, 1, stride=2)

        def forward(self, values):
            return self.second(self.first(values).relu()) + self.downsample(values)

    torch.manual_seed(0)
    return nn.Sequential(Block(), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)).double()


@pytest.mark.parametrize("size", [(8, 8), (7, 11)])
def test_a_block_of_a_resnet_at_every_second_cell(size):
    strided = make_layers()
    dense = copy.deepcopy(strided)
    run_densely(dense)
    maps = torch.randn(1, 3, *size, dtype=torch.float64)
    outputs, expected = dense(maps), strided(maps)
    assert outputs.shape[2:] == maps.shape[2:]
    torch.testing.assert_close(outputs[:, :, ::2, ::2], expected, rtol=0, atol=1e-12)
    assert [layer.dilation[0] for layer in dense.modules() if isinstance(layer, nn.Conv2d)] == [1, 2, 1, 2]


@pytest.mark.parametrize(("size", "first"), [((8, 10), 1), ((7, 9), 0)])  # SAME pads more at the right, so cells are 1, 3, ...
def test_the_last_blocks_of_efficientnet_at_every_second_cell(size, first):
    torch.manual_seed(0)
    head = make_backbone("efficientnet_lite0").double().fc["head"]
    dense = copy.deepcopy(head)
    run_densely(dense.blocks)
    maps = torch.randn(2, 112, *size, dtype=torch.float64)
    with torch.no_grad():
        outputs, expected = dense.convolve(maps), head.convolve(maps)
    assert outputs.shape[2:] == size
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(outputs[:, :, first::2, first::2], expected, rtol=0, atol=1e-9)


def test_layers_without_a_stride_stay():
    layers = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 1))
    maps, before = torch.randn(1, 2, 5, 6), copy.deepcopy(layers)
    run_densely(layers)
    assert torch.equal(layers(maps), before(maps))


def test_other_strides_are_an_error():
    with pytest.raises(ValueError, match=r"stride \(3, 3\), expected 1 or 2"):
        run_densely(nn.Sequential(nn.Conv2d(1, 1, 3, stride=3)))
