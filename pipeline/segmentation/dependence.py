"""How far away the pixels are that a pixel's scores depend on: what a tile of a large image must see around it."""

from pipeline.networks.backbones import Backbone
from pipeline.segmentation import encoder
from pipeline.segmentation.geometry import Layer, layer_of, reach
from pipeline.segmentation.layout import FULL_RESOLUTION, PATCHES, SKIPS
from pipeline.segmentation.network import SegmentationNetwork
from pipeline.segmentation.unpooling import Unpooling, encoder_modules


def margin_of(model: SegmentationNetwork) -> tuple[int, int]:
    """The distance in pixels, a multiple of the stride, and the stride: where a tile may begin so that cells lie as in the image.

    Upsampling reads cells up to a stride away. Padding that is longer on one side is within a stride, too.
    """
    kind, method = model.layout.kind, model.method
    if kind == FULL_RESOLUTION:
        return reach(method.layer_shapes()), 1
    if kind == PATCHES:
        return -(-(method.window // 2 + 2 * method.stride) // method.stride) * method.stride, method.stride
    if kind in SKIPS:
        stride = encoder.DEEP
        hidden = [] if model.backbone.fc and encoder.slides(model.backbone) else [Layer(3, 1, 1)]
        distance = reach([*encoder.map_layers(model.backbone, stride), *hidden])
        return -(-(distance + 2 * stride) // stride) * stride, stride
    return _decoder_margin(model.backbone, method)


def _decoder_margin(backbone: Backbone, method: Unpooling) -> tuple[int, int]:
    modules = encoder_modules(backbone)
    stride = 1
    for module in modules:
        stride *= layer_of(module).stride
    distance, cell = reach(map(layer_of, modules)), stride
    distance += cell * len(method.bridge)
    for decoder, stage in zip(method.decoders, reversed(method.stages)):
        distance += cell  # upsampling reads the next cell
        cell //= stage.pooling.stride
        distance += cell * len(decoder)
    return -(-(distance + 2 * cell + stride) // stride) * stride, stride
