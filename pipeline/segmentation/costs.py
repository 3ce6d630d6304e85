"""What a label map costs: pixels that go through the conv layers, and multiply-adds. The lecture's table of the methods.

With patches each window goes through the conv layers alone; fully convolutional networks see the image once, in its border.
"""

from dataclasses import asdict, dataclass, replace

import torch

from pipeline.networks.backbones import make_backbone
from pipeline.networks.without_weights import without_weights
from pipeline.segmentation.encoder import READINGS, framed
from pipeline.segmentation.layout import FULL_RESOLUTION, PATCHES, UNPOOLING, Layout
from pipeline.segmentation.network import SegmentationNetwork


@dataclass(frozen=True)
class Cost:
    """Of one image: `windows` seen alone, `pixels` through the conv layers, `multiply_adds` of convolutions and products.

    `activations` are the values of the largest map.
    """

    windows: int
    pixels: int
    multiply_adds: int
    activations: int

    def to_json(self) -> dict:
        return asdict(self)


def cost_of(layout: Layout, height: int, width: int) -> Cost:
    """The cost of an image of `height` x `width` pixels. No weights are needed, and nothing is computed."""
    with without_weights():
        model = SegmentationNetwork(make_backbone(layout.backbone), layout).eval()
    if layout.kind == PATCHES:
        return _cost_of_patches(model, height, width)
    values = torch.zeros(1, 3, height, width, device="meta")
    whole = replace(_counted(model, values), windows=1)
    if layout.kind == FULL_RESOLUTION:
        return replace(whole, pixels=height * width)
    border = model.method.encoder.border if layout.kind == UNPOOLING else READINGS[layout.backbone].border
    seen = framed(values, border, model.backbone.view.whole_cells)
    return replace(whole, pixels=seen.shape[2] * seen.shape[3])


def _cost_of_patches(model: SegmentationNetwork, height: int, width: int) -> Cost:
    method = model.method
    rows, columns = method.grid((height, width))
    count, side = rows * columns, method.window
    # All windows cost the same. Upsampling their scores costs next to nothing and is left out.
    window = _counted(model, torch.zeros(1, 3, side, side, device="meta"), windows=True)
    return Cost(count, count * side**2, count * window.multiply_adds, window.activations)


def _counted(model: SegmentationNetwork, values: torch.Tensor, windows: bool = False) -> Cost:
    """The cost of `values` in the network. With `windows` they are one window: only its features and its scores are computed."""
    from torch.utils.flop_counter import FlopCounterMode

    largest = 0

    def note(module, inputs, output) -> None:
        nonlocal largest
        if isinstance(output, torch.Tensor):
            largest = max(largest, output.numel())

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            if windows:
                model.method.score(model.method.features(model.backbone, values))
            else:
                model(values)
    finally:
        for hook in hooks:
            hook.remove()
    return Cost(1, 0, counter.get_total_flops() // 2, largest)
