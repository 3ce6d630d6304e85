"""ResNets (He et al. 2016) as torchvision builds them: conv1 to conv4 make the map, conv5 runs for each region.

The stride of a block of three convolutions is on its 3 x 3 ("version 1.5"). NOTE: in the authors' files it is on the first 1 x 1.
"""

from torch import nn

from pipeline.networks.convolutions import draw_weights, freeze_norms
from pipeline.networks.region_head import RegionHead
from pipeline.networks.variants import Variant

# Beginnings of the backbone's names, and of those in a file of torchvision's.
FILE_NAMES = {
    "trunk.0": "conv1", "trunk.3": "layer1", "trunk.4": "layer2", "trunk.5": "layer3", "fc.head.blocks": "layer4",
}
CLASSIFIER = ("fc.",)
EPSILON = 1e-5  # of batch normalisation


def make_parts(variant: Variant) -> tuple[nn.Sequential, RegionHead]:
    """The trunk, with conv2 to conv4 as one module each, and the layers of regions. With random weights."""
    import torchvision

    model = getattr(torchvision.models, variant.base)()
    freeze_norms(model)
    stages = (model.layer1, model.layer2, model.layer3, model.layer4)
    draw_weights(model.modules())
    _shrink_branches(stages)
    if variant.stride == 1:
        keep_resolution(model.layer4[0])
    trunk = nn.Sequential(model.conv1, model.relu, model.maxpool, *stages[:3])
    size = model.fc.in_features
    return trunk, RegionHead(model.layer4, channels=size // 2, grid=variant.grid, out_features=size)


def _shrink_branches(stages: tuple[nn.Sequential, ...]) -> None:
    """Makes the branches of all L blocks 1 / sqrt(L) as large. Batch normalisation that is frozen does not keep sums small."""
    blocks = [dict(block.named_children()) for stage in stages for block in stage]
    for layers in blocks:
        last = layers.get("conv3", layers["conv2"]).get_parameter("weight")
        nn.init.kaiming_normal_(last, nonlinearity="linear")
        last.data /= len(blocks) ** 0.5
        if "downsample" in layers:
            nn.init.kaiming_normal_(layers["downsample"].get_parameter("0.weight"), nonlinearity="linear")


def keep_resolution(block: nn.Module) -> None:
    """Takes the stride of a block away, in place."""
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
