"""Averages of the bins of regions and of whole maps, as products with matrices of weights: the same gradients in every run.

Averages of cells, or of samples between cells (RoIAlign, He et al. 2017, section 3).

For maps whose values no ReLU has cut off at 0: their largest value says little. With ImageNet's weights and maxima for averages
EfficientNet-Lite0 takes a cat, a cup and an astronaut for a conch.

Shape shorthand: N regions or images; D channels, h x w cells of a map; n bins a side.
"""

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.networks.roi_pooling import roi_bins, roi_cells

SAMPLES = 2  # of RoIAlign, along each side of a bin: "results are not sensitive" to it (He et al. 2017, section 3)
REGIONS_AT_A_TIME = 128  # without gradients; each holds n h D values between the two products


def roi_average(features: Tensor, rois: Tensor | np.ndarray, spatial_scale: float, bins: int) -> Tensor:
    """The averages of the bins of `roi_pool`: [D x h x w], [N x 4] -> [N x D x bins x bins]; an empty bin is 0.

    For arguments and bins see there. Differentiable with respect to `features`.
    """
    corners = roi_cells(rois, spatial_scale)
    height, width = features.shape[1:]
    columns, rows = (
        _weights(roi_bins(corners[:, side::2], bins, size), size, features) for side, size in ((0, width), (1, height))
    )
    return _in_parts(features, rows, columns)


def roi_align(
    features: Tensor, rois: Tensor | np.ndarray, spatial_scale: float, bins: int, *, centre: float = 0.0
) -> Tensor:
    """RoIAlign: a bin is the mean of 2 x 2 samples between cells, and no corner is rounded; for arguments see `roi_pool`.

    Cell i is at pixel i / `spatial_scale` + `centre`. A sample more than a cell outside of the map is 0. Equal to
    torchvision.ops.roi_align (`aligned`) for boxes that are moved by the difference between its pixels and ours.
    """
    corners = torch.as_tensor(rois).detach().cpu().double().reshape(-1, 4).numpy()
    # The edges of the first and of the last pixel, since both count; then from pixels to cells.
    edges = (corners + np.array([-0.5, -0.5, 0.5, 0.5]) - centre) * spatial_scale
    height, width = features.shape[1:]
    columns, rows = (_sample_weights(edges[:, side::2], bins, size, features) for side, size in ((0, width), (1, height)))
    return _in_parts(features, rows, columns)


def _sample_weights(edges: np.ndarray, bins: int, size: int, like: Tensor) -> Tensor:
    """The weight of each of `size` cells in each bin between `edges` [N x 2], by linear interpolation: [N x n x size]."""
    steps = (np.arange(bins * SAMPLES) + 0.5) / (bins * SAMPLES)
    places = edges[:, :1] + (edges[:, 1:] - edges[:, :1]) * steps
    within = (places >= -1) & (places <= size)
    distances = np.abs(np.clip(places, 0, size - 1)[..., None] - np.arange(size))
    weights = np.maximum(1 - distances, 0) * within[..., None]
    return torch.from_numpy(weights.reshape(-1, bins, SAMPLES, size).mean(2)).to(like.device, like.dtype)


def _in_parts(features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`_average`, without gradients of so many regions at a time that memory suffices."""
    if torch.is_grad_enabled() or len(rows) <= REGIONS_AT_A_TIME:
        return _average(features, rows, columns)
    parts = zip(rows.split(REGIONS_AT_A_TIME), columns.split(REGIONS_AT_A_TIME), strict=True)
    return torch.cat([_average(features, *part) for part in parts])


def _average(features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[D x h x w], [N x n x h], [N x n x w] -> [N x D x n x n]."""
    by_column = torch.einsum("njw,dhw->nhjd", columns, features)
    return torch.einsum("nih,nhjd->ndij", rows, by_column)


def _weights(bins: np.ndarray, size: int, like: Tensor) -> Tensor:
    """The weight of each of `size` cells in each of `bins` [... x 2], from the first cell to before the end: [... x size]."""
    cells = np.arange(size)
    within = (cells >= bins[..., :1]) & (cells < bins[..., 1:])
    weights = within / np.maximum(within.sum(-1, keepdims=True), 1)
    return torch.from_numpy(weights).to(like.device, like.dtype)


class AveragingGrid(nn.Module):
    """Averages of whole maps [N x D x h x w] to [N x D x n x n]; bin i is floor(i w / n) .. ceil((i + 1) w / n)."""

    def __init__(self, bins: int):
        super().__init__()
        self.bins = bins

    def forward(self, maps: Tensor) -> Tensor:
        rows, columns = (self._weights_along(size, maps) for size in maps.shape[2:])
        return rows @ maps @ columns.T

    def _weights_along(self, size: int, like: Tensor) -> Tensor:
        edges = np.arange(self.bins + 1) * size
        return _weights(np.stack([edges[:-1] // self.bins, -(-edges[1:] // self.bins)], axis=1), size, like)
