"""Standardising channels: mean 0 and one deviation for all. For new layers on values that no layer was trained on before.

No classifier was ever trained on such values: their norm is in the thousands and their mean far from 0, at which the releases'
learning rates diverge or get nowhere.

Shape shorthand: N rows of D values, C channels; a row has the values of one channel after those of another.
"""

import torch
from torch import Tensor, nn


def channel_scale(deviation: Tensor, wanted: float, least: float = 0.0) -> Tensor:
    """The factors [C] that bring channels of `deviation` [C] to the deviation `wanted`."""
    # A channel that hardly ever fires would be blown up.
    return wanted / (deviation + 0.01 * deviation.mean() + least)


def map_standard(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The shift and the scale [C] that bring the channels of all `maps` [C x h x w] to mean 0 and deviation 1."""
    cells = torch.cat([values.float().flatten(1) for values in maps], dim=1)
    return cells.mean(1), channel_scale(cells.std(1), 1.0, least=1e-12)


class Standard(nn.Module):
    """x -> (x - shift) * scale, value by value, for rows [N x D]."""

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Tensor, scale: Tensor):
        super().__init__()
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    @classmethod
    def over(cls, values: Tensor, channels: int, norm: float) -> "Standard":
        """That which gives the channels of `values` [N x D] mean 0 and such a deviation that the norm of D values is `norm`."""
        of_channels = values.float().unflatten(1, (channels, -1))
        scale = channel_scale(of_channels.std((0, 2)), norm / values.shape[1] ** 0.5)
        cells = of_channels.shape[2]
        return cls(*(each.repeat_interleave(cells) for each in (of_channels.mean((0, 2)), scale)))

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.shift) * self.scale

    @torch.no_grad()
    def fold_into(self, layer: nn.Linear) -> None:
        """Makes `layer`, which applies to standardised values, the same function of the values as they are."""
        layer.weight.mul_(self.scale)
        layer.bias.sub_(layer.weight @ self.shift)

    @torch.no_grad()
    def unfold_from(self, layer: nn.Linear) -> None:
        """The inverse of `fold_into`."""
        layer.bias.add_(layer.weight @ self.shift)
        layer.weight.div_(self.scale)
