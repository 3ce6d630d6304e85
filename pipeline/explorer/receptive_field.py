"""What part of a crop a unit of `pool5` sees: its receptive field, in pixels of the network's input.

The field is measured, so that it is right for every backbone: in a copy of the trunk all weights are positive and pooling
averages. Then the gradient of a unit is above 0 at exactly those pixels that can change it.
"""

from functools import lru_cache

import torch
from torch import nn

from pipeline.networks.backbones import Backbone, make_backbone
from pipeline.networks.without_weights import without_weights


def unit_place(name: str, unit: int) -> tuple[tuple[int, int, int], int]:
    """(channel, row, column) of unit number `unit` of `pool5` in the backbone `name`, and the side of its crop in pixels."""
    backbone = _averaging(name)
    channel, cell = divmod(unit, backbone.grid**2)
    return (channel, *divmod(cell, backbone.grid)), backbone.crop_size


@lru_cache(maxsize=512)
def receptive_field(name: str, row: int, column: int) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of what the units of `row` and `column` of the backbone `name` see, within its crop; x2, y2 exclusive."""
    backbone = _averaging(name)
    crop = torch.ones(1, 3, backbone.crop_size, backbone.crop_size, dtype=torch.float64, requires_grad=True)
    pooled = backbone.pool(backbone.trunk(crop))
    pooled[:, :, row, column].sum().backward()
    assert crop.grad is not None
    ys, xs = (crop.grad[0].sum(dim=0) > 0).nonzero().T
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


@lru_cache(maxsize=1)
def _averaging(name: str) -> Backbone:
    """The backbone in which every connection counts."""
    with without_weights():
        backbone = make_backbone(name).eval()
    _without_maxima(backbone)
    for part in (backbone.trunk, backbone.pool):
        part.to_empty(device="cpu").double()
        for module in part.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d):
                # Of the size of a mean, so that values neither vanish nor overflow.
                nn.init.constant_(module.weight, 1 / module.weight[0].numel())
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return backbone


def _without_maxima(module: nn.Module) -> None:
    """Puts means in place of maxima in `module`: a maximum passes the gradient to one of its inputs only."""
    for child_name, child in module.named_children():
        if isinstance(child, nn.MaxPool2d):
            setattr(module, child_name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
        elif isinstance(child, nn.AdaptiveMaxPool2d):
            setattr(module, child_name, nn.AdaptiveAvgPool2d(child.output_size))
        else:
            _without_maxima(child)
