"""The last pooling from several offsets (Sermanet et al. 2014, "OverFeat", section 3.3).

Pooling over P x P cells keeps one window in P in each direction. Pooled once from each of P x P offsets, all windows are kept:
the classifier runs on each of the P x P maps, and its outputs are interleaved.

1. Pool the map from the start offsets (0, ..., P - 1) x (0, ..., P - 1).
2. Apply the classifier to each pooled map.
3. Interleave: the output of offset (dy, dx) at (i, j) stands at row P i + dy, column P j + dx.

Shape shorthand: N images, C channels, H x W cells of the map, h x w pooled cells, a x b outputs of one offset, K values of each.
"""

import torch
from torch import Tensor, nn

POOL = 3  # P, in OverFeat


def pool_at_offsets(maps: Tensor, pool: int = POOL) -> Tensor:
    """[N x C x H x W] -> [N x P x P x C x h x w], one pooled map for each offset (dy, dx).

    Sizes that are P - 1 modulo P lose no cell. From others, the last rows and columns that not all offsets reach are left out.
    """
    rows, columns = ((side - pool + 1) // pool * pool for side in maps.shape[2:])
    offsets = range(pool)
    pooled = [
        nn.functional.max_pool2d(maps[:, :, dy:dy + rows, dx:dx + columns], pool) for dy in offsets for dx in offsets
    ]
    return torch.stack(pooled, dim=1).unflatten(1, (pool, pool))


def interleave(outputs: Tensor) -> Tensor:
    """[N x P x P x K x a x b] of the offsets -> [N x K x P a x P b]."""
    images, pool, _, values, rows, columns = outputs.shape
    return outputs.permute(0, 3, 4, 1, 5, 2).reshape(images, values, rows * pool, columns * pool)
