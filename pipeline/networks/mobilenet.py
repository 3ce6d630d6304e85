"""MobileNetV3-Large (Howard et al. 2019) as torchvision builds it: blocks 0 to 11 make the map, the rest runs for each region.

The rest is blocks 12 to 14, a 1 x 1 convolution, the mean and the hidden layer of the classifier.
"""

from torch import nn

from pipeline.networks.convolutions import draw_weights, freeze_norms
from pipeline.networks.region_head import RegionHead
from pipeline.networks.resnet import keep_resolution
from pipeline.networks.variants import Variant

MAP_LAYERS, LAST = 13, 16  # the first layers, which make the map; the number of the last convolution
MAP_CHANNELS, LAST_MAP_CHANNELS, HIDDEN = 112, 160, 1280
# Beginnings of the backbone's names, and of those in a file of torchvision's.
FILE_NAMES = {
    "trunk": "features", "fc.head.blocks": "features", "fc.head.last": f"features.{LAST}", "fc.head.hidden": "classifier",
}
CLASSIFIER = ("classifier.3.",)
EPSILON = 1e-3  # of batch normalisation


def make_parts(variant: Variant) -> tuple[nn.Sequential, RegionHead]:
    """The trunk, one module per block after the first convolution, and the layers of regions. With random weights."""
    from torchvision.models import mobilenet_v3_large

    model = mobilenet_v3_large()
    freeze_norms(model)
    draw_weights(model.features.modules())
    for block in model.features[1:LAST]:  # no activation follows their last convolution
        nn.init.kaiming_normal_(block.block[-1][0].weight, nonlinearity="linear")
    blocks = model.features[MAP_LAYERS:LAST]
    if variant.stride == 1:
        keep_resolution(blocks[0])
    head = RegionHead(
        blocks, channels=MAP_CHANNELS, grid=variant.grid, out_features=HIDDEN, last=model.features[LAST],
        hidden=model.classifier[:2], last_map=(LAST_MAP_CHANNELS, variant.last_side),
    )
    nn.init.kaiming_normal_(model.classifier[0].weight, nonlinearity="relu")
    return model.features[:MAP_LAYERS], head
