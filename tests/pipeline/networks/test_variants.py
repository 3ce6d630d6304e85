"""Names of backbones and of their variants."""

import pytest

from pipeline.errors import PipelineError
from pipeline.networks.variants import NAMES, Variant, base_of


@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_by_itself(name):
    assert Variant.of(name).name == name
    assert Variant.of(name).pooling == ("average" if name in ("efficientnet_lite0", "mobilenet_v3_large") else "max")


@pytest.mark.parametrize(("name", "expected", "shortest"), [
    ("resnet50+grid14", ("resnet50", 14, 2, "max"), "resnet50+grid14"),
    ("resnet50+align+stride1+grid14", ("resnet50", 14, 1, "align"), "resnet50+grid14+stride1+align"),
    ("resnet50+grid7+stride2+max", ("resnet50", 7, 2, "max"), "resnet50"),
    ("efficientnet_lite0+average", ("efficientnet_lite0", 7, 2, "average"), "efficientnet_lite0"),
    ("efficientnet_lite0+max", ("efficientnet_lite0", 7, 2, "max"), "efficientnet_lite0+max"),
    ("vgg16+align", ("vgg16", 7, 2, "align"), "vgg16+align"),
])
def test_equal_variants_have_one_name(name, expected, shortest):
    variant = Variant.of(name)
    assert (variant.base, variant.grid, variant.stride, variant.pooling) == expected
    assert variant.name == shortest
    assert base_of(name) == variant.base


@pytest.mark.parametrize(("name", "fault"), [
    ("resnet", "backbone 'resnet' is none of alexnet, "),
    ("resnet34+align", "is none of alexnet"),
    ("vgg16+grid14", "backbone 'vgg16+grid14': vgg16 has no variant 'grid14'; it has align, average, max"),
    ("resnet50+grid9", "resnet50 has no variant 'grid9'; it has align, average, grid14, grid7, max, stride1, stride2"),
    ("resnet50+", "resnet50 has no variant ''"),
    ("resnet50+max+align", "backbone 'resnet50\\+max\\+align' says its pooling twice; give it once"),
    ("resnet50+grid7+grid14", "says its grid twice"),
])
def test_what_there_is_not_is_refused(name, fault):
    with pytest.raises(PipelineError, match=fault.replace("vgg16+", "vgg16\\+")):
        Variant.of(name)
