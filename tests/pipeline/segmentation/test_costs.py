"""Costs: counts worked by hand, and the lecture's ratio of patches to fully convolutional networks."""

import pytest

from pipeline.segmentation.costs import cost_of
from pipeline.segmentation.layout import Layout


def cost_for(kind, height=240, width=320, backbone="tiny", **settings):
    return cost_of(Layout(backbone, 6, kind, **settings), height, width)


def test_full_resolution_by_hand():
    """3 x 3 convolutions to 16, 32, 32 and 32 channels, and 1 x 1 to 6, at every pixel."""
    cost = cost_for("full-resolution", 10, 20)
    assert cost.multiply_adds == 200 * (9 * (3 * 16 + 16 * 32 + 32 * 32 + 32 * 32) + 32 * 6)
    assert (cost.pixels, cost.activations) == (200, 200 * 32)


def test_windows_by_hand():
    """240 x 320 pixels at stride 8: 30 x 40 windows of 64 x 64 pixels."""
    cost = cost_for("patches", patch_stride=8)
    assert (cost.windows, cost.pixels) == (1200, 1200 * 64 * 64)
    trunk = 32 * 32 * 25 * 3 * 16 + 16 * 16 * 9 * 16 * 32 + 8 * 8 * 9 * 32 * 64 + 4 * 4 * 9 * (64 * 128 + 128 * 128)
    assert cost.multiply_adds == 1200 * (trunk + 128 * 16 * 256 + 256 * 6)


def test_the_image_in_its_border_by_hand():
    assert cost_for("fcn8s").pixels == (240 + 14) * (320 + 14)
    assert cost_for("fcn8s", backbone="vgg16").pixels == (240 + 198) * (320 + 198)
    assert cost_for("unpooling", backbone="vgg16", upsampling="unpool").pixels == 240 * 320
    # 15 pixels before, and as many after as make a multiple of 32.
    assert cost_for("fcn8s", backbone="efficientnet_lite0").pixels == 256 * 352


@pytest.mark.parametrize("backbone", ["tiny", "squeezenet1_0"])
def test_patches_are_at_least_50_times_as_costly(backbone):
    """At a stride of 8 pixels, that of the finest map which the FCNs score."""
    patches, whole = cost_for("patches", backbone=backbone, patch_stride=8), cost_for("fcn32s", backbone=backbone)
    assert patches.pixels > 50 * whole.pixels
    assert patches.multiply_adds > 50 * whole.multiply_adds


def test_skips_cost_next_to_nothing():
    assert cost_for("fcn8s").multiply_adds < 1.15 * cost_for("fcn32s").multiply_adds
