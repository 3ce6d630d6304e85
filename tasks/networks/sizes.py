"""How large maps and features are, known without torch: what a run needs to estimate its disk before it starts."""

from pipeline.networks.variants import CONVOLUTIONAL, Variant, base_of

STRIDE = 16  # pixels of the scaled image from one cell of a map to the next, in all backbones
CHANNELS = {
    "alexnet": 256, "vgg16": 512, "squeezenet1_0": 512, "efficientnet_lite0": 112, "mobilenet_v3_large": 112, "resnet18": 256,
    "resnet50": 1024, "resnet101": 1024, "tiny": 128,
}
GRIDS = {"alexnet": 6, "vgg16": 7, "squeezenet1_0": 4, "tiny": 4}  # the others': see `Variant`
FULLY_CONNECTED = {"alexnet": 4096, "vgg16": 4096, "tiny": 256}
HEADS = {"efficientnet_lite0": 1280, "mobilenet_v3_large": 1280, "resnet18": 512, "resnet50": 2048, "resnet101": 2048}


def map_channels(backbone: str) -> int:
    """The channels of a backbone's map."""
    return CHANNELS[base_of(backbone)]


def feature_size(backbone: str, layer: str) -> int:
    """How many values of `layer` a region has."""
    base = base_of(backbone)
    if layer == "pool5":
        return CHANNELS[base] * (GRIDS.get(base) or Variant.of(backbone).grid) ** 2
    return HEADS[base] if layer == "head" else FULLY_CONNECTED[base]


def has_zeros(backbone: str) -> bool:
    """Whether a ReLU makes many features zeros and nothing averages them afterwards."""
    return base_of(backbone) not in CONVOLUTIONAL
