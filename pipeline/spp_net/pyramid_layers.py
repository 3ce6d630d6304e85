"""The fully connected layers on the pyramid (He et al. 2014, section 4.1): fc6 reads all bins of all levels of a region.

NOTE: the release's network was trained on ImageNet with the pyramid in place of pool5. Ours was trained with one grid of bins.
So fc6 starts as that network's fc6 on one level and with zeros on the others, and learns them in fine-tuning. The level is the
one with as many bins as the grid. Without such a level it is the finest one, and the weights of each bin of the grid are shared
out over the level's bins that it overlaps.

Shape shorthand: H values of fc6, C channels, G bins a side of the network's own grid, n bins a side of a level.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.networks.backbones import Backbone, FullyConnected, make_backbone
from pipeline.networks.weights import load_tensors
from pipeline.spp_net.spatial_pyramid import pyramid_size


def put_on_pyramid(backbone: Backbone, levels: Sequence[int]) -> None:
    """Makes the first fully connected layer of `backbone` read rows of `pyramid_features` in place of `pool5`, in place.

    `backbone.head` then makes the layers from the pyramid. Raises PipelineError for a backbone without such layers.
    """
    name, old = _first_layer(backbone)
    _replace(backbone, name, pyramid_weights(old.weight.detach(), backbone.grid, levels), old.bias)


def pyramid_backbone(name: str, levels: Sequence[int], tensors: dict[str, Tensor], source: Path | str) -> Backbone:
    """The backbone `name` whose layers read the pyramid, with these `tensors` from `source`; see `put_on_pyramid`.

    Raises PipelineError where they do not fit.
    """
    backbone = make_backbone(name)
    layer, old = _first_layer(backbone)
    shape, expected = getattr(tensors.get(f"fc.{layer}.weight"), "shape", None), pyramid_size(backbone.view.channels, levels)
    if shape != (old.out_features, expected):  # before memory is taken for as many values
        actual = "missing" if shape is None else f"of shape {tuple(shape)}"
        raise PipelineError(
            f"{source}: not layers on a pyramid of levels {', '.join(map(str, levels))}: fc.{layer}.weight is {actual}, "
            f"expected {(old.out_features, expected)}"
        )
    _replace(backbone, layer, torch.empty(shape), old.bias)
    load_tensors(backbone, tensors, source)
    return backbone


def _first_layer(backbone: Backbone) -> tuple[str, nn.Linear]:
    if not backbone.has_own_layers:
        raise PipelineError(f"backbone {backbone.name} has no fully connected layers to put on the pyramid")
    name, layer = next(iter(backbone.fc.items()))
    assert isinstance(layer, nn.Linear)  # as every backbone's own are
    return name, layer


def _replace(backbone: Backbone, name: str, weight: Tensor, bias: nn.Parameter) -> None:
    layer = FullyConnected(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), bias
    backbone.fc[name] = layer.train(backbone.fc[name].training)
    backbone.sizes["pool5"] = layer.in_features


def pyramid_weights(weight: Tensor, grid: int, levels: Sequence[int]) -> Tensor:
    """`weight` [H x C G G] of a layer on `grid` x `grid` bins as weights of the same layer on the pyramid [H x P]."""
    level = grid if grid in levels else max(levels)
    of_grid = weight.unflatten(1, (-1, grid, grid))
    shares = bin_shares(grid, level).to(weight)
    of_level = torch.einsum("hcij,iy,jx->hyxc", of_grid, shares, shares)  # a pyramid's row has the channels of a bin together
    channels = of_grid.shape[1]
    parts = [of_level.flatten(1) if n == level else weight.new_zeros(len(weight), channels * n * n) for n in levels]
    return torch.cat(parts, dim=1)


def bin_shares(grid: int, level: int) -> Tensor:
    """Which part of each of `grid` equal bins of a line lies in each of `level` equal bins: float64 [G x n], rows add up to 1."""
    grid_edges, level_edges = (torch.arange(count + 1, dtype=torch.float64) / count for count in (grid, level))
    ends = torch.minimum(grid_edges[1:, None], level_edges[None, 1:])
    return grid * (ends - torch.maximum(grid_edges[:-1, None], level_edges[None, :-1])).clamp(min=0)
