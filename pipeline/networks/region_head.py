"""The layers of a region in place of fully connected ones: the last convolutions of a network, and a mean over their map.

He et al. 2016, appendix A: conv5 of a ResNet runs once per region, after RoI pooling.

Shape shorthand: N regions, C channels and n cells a side of what a region is pooled to, F features.
"""

import torch
from torch import Tensor, nn

REGIONS_AT_A_TIME = 64  # without gradients; so few keep their activations in the processor's cache


class RegionHead(nn.Module):
    """`blocks`, `last` with its `activation`, the mean over cells, `hidden`: rows of `pool5` [N x C n n] to [N x F].

    `grid` is n, `out_features` is F. Layers that a network does not have are the identity.
    """

    def __init__(
        self, blocks: nn.Sequential, *, channels: int, grid: int, out_features: int, last: nn.Module | None = None,
        activation: nn.Module | None = None, hidden: nn.Module | None = None,
    ):
        super().__init__()
        self.grid, self.channels, self.out_features = grid, channels, out_features
        self.blocks, self.last, self.activation, self.hidden = (
            blocks, *(layer or nn.Identity() for layer in (last, activation, hidden))
        )

    def forward(self, pool5: Tensor) -> Tensor:
        if torch.is_grad_enabled() or len(pool5) <= REGIONS_AT_A_TIME:
            return self._features(pool5)
        return torch.cat([self._features(part) for part in pool5.split(REGIONS_AT_A_TIME)])

    def _features(self, pool5: Tensor) -> Tensor:
        maps = pool5.view(-1, self.channels, self.grid, self.grid).contiguous(memory_format=torch.channels_last)
        return self.summarise(self.convolve(maps))

    def convolve(self, maps: Tensor) -> Tensor:
        """The map [N x D x h x w] of the last block, from maps [N x C x H x W] of any size."""
        return self.blocks(maps)

    def summarise(self, last_maps: Tensor) -> Tensor:
        """[N x F] from what `convolve` makes."""
        return self.hidden(self.activation(self.last(last_maps)).mean((2, 3)))
