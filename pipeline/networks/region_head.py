"""The layers of a region in place of fully connected ones: the last convolutions of a network, and a mean over their map.

He et al. 2016, appendix A: conv5 of a ResNet runs once per region, after RoI pooling.

Shape shorthand: N regions, C channels and n cells a side of what a region is pooled to, F features.
"""

import torch
from torch import Tensor, nn

REGIONS_AT_A_TIME = 64  # without gradients; so few keep their activations in the processor's cache


class RegionHead(nn.Module):
    """`blocks`, `last` with its `activation`, the mean over cells, `hidden`: rows of `pool5` [N x C n n] to [N x F].

    `grid` is n, `out_features` is F. Layers that a network does not have are the identity. `last_map` are the channels and the
    cells a side of the last block's map, if detectors regress boxes from that map; None: from the features, as on ResNets.
    """

    def __init__(
        self, blocks: nn.Sequential, *, channels: int, grid: int, out_features: int, last: nn.Module | None = None,
        activation: nn.Module | None = None, hidden: nn.Module | None = None, last_map: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.grid, self.channels, self.out_features, self.last_map = grid, channels, out_features, last_map
        self.blocks, self.last, self.activation, self.hidden = (
            blocks, *(layer or nn.Identity() for layer in (last, activation, hidden))
        )

    @property
    def last_map_size(self) -> int:
        """Values of the last map that boxes are regressed from; 0 without."""
        return self.last_map[0] * self.last_map[1] ** 2 if self.last_map else 0

    def forward(self, pool5: Tensor) -> Tensor:
        if torch.is_grad_enabled() or len(pool5) <= REGIONS_AT_A_TIME:
            return self._features(pool5)
        return torch.cat([self._features(part) for part in pool5.split(REGIONS_AT_A_TIME)])

    def with_map(self, pool5: Tensor) -> tuple[Tensor, Tensor]:
        """The features [N x F], and the last map as rows [N x D h w]."""
        if torch.is_grad_enabled() or len(pool5) <= REGIONS_AT_A_TIME:
            return self._with_map(pool5)
        features, maps = zip(*map(self._with_map, pool5.split(REGIONS_AT_A_TIME)), strict=True)
        return torch.cat(features), torch.cat(maps)

    def _features(self, pool5: Tensor) -> Tensor:
        return self.summarise(self.convolve(self._grid(pool5)))

    def _with_map(self, pool5: Tensor) -> tuple[Tensor, Tensor]:
        last_maps = self.convolve(self._grid(pool5))
        return self.summarise(last_maps), last_maps.flatten(1)

    def _grid(self, pool5: Tensor) -> Tensor:
        return pool5.view(-1, self.channels, self.grid, self.grid).contiguous(memory_format=torch.channels_last)

    def convolve(self, maps: Tensor) -> Tensor:
        """The map [N x D x h x w] of the last block, from maps [N x C x H x W] of any size."""
        return self.blocks(maps)

    def summarise(self, last_maps: Tensor) -> Tensor:
        """[N x F] from what `convolve` makes."""
        return self.hidden(self.activation(self.last(last_maps)).mean((2, 3)))
