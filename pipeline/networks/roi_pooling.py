"""RoI max pooling (Girshick 2015, section 2.1): regions of a conv map, each to one grid of bins, with gradients.

Shape shorthand: N regions; D channels, h x w cells of a map; n bins a side.
"""

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.networks.max_pooling import CELL_BITS, in_threads, order_keys, pool_rois, restore, scatter, share_out

LEAST_CHANNELS = 128  # With fewer for each of two threads, neither is done sooner than one with all of them


def roi_pool(features: Tensor, rois: Tensor | np.ndarray, spatial_scale: float, bins: int) -> Tensor:
    """RoI max pooling (Girshick 2015, section 2.1): [D x h x w], [N x 4] -> [N x D x bins x bins], contiguous.

    `features` is one image's map in float32, bfloat16 or float16, which the result is in too; channels last in memory is fastest.
    `rois` are the release's: float32 (x1, y1, x2, y2) in pixels of the scaled image, 0-based, *inclusive* corners.
    `spatial_scale` is cells a pixel. Differentiable with respect to `features`: a bin's gradient goes to its largest cell, of
    equal ones to the first by rows.

    On the CPU equal to torchvision.ops.roi_pool to the bit, forwards and backwards; elsewhere forwards it is that, and gradients
    have the same bytes in every run, which torchvision's do not on a GPU. Corners round half away from zero (`roi_cells`), both
    count, and a reversed region is one cell wide. Bin i of `size` cells is floor(i * step) .. ceil((i + 1) * step), where step =
    size / bins is *float32*, as in the release: the last of 7 bins of 57 cells takes in a 58th. The bins are clipped to the map;
    an empty one is 0.

    Raises ValueError on a map of another dtype and on corners that `roi_cells` refuses.
    """
    if features.dtype not in (torch.float32, torch.bfloat16, torch.float16) or features.ndim != 3:
        raise ValueError(f"features are {features.dtype} {tuple(features.shape)}, expected float32 or 16-bit floats [D x h x w]")
    if features.device.type == "cpu":
        return _RoiPool.apply(features, roi_cells(rois, spatial_scale), bins)
    return by_torchvision(features, rois, spatial_scale, bins)


def roi_cells(rois: Tensor | np.ndarray, spatial_scale: float) -> np.ndarray:
    """The cells that the corners of `rois` [N x 4] round to, not clipped: int64 [N x 4]. Regions of the same cells pool the same.

    Raises ValueError on corners that are not finite or 32767 cells away.
    """
    scaled = np.asarray(rois, np.float32).reshape(-1, 4) * np.float32(spatial_scale)
    limit = 2 ** (CELL_BITS - 1) - 1
    if not (np.abs(scaled) < limit).all():
        raise ValueError(f"corners of regions are not finite or {limit} cells away")
    wide = scaled.astype(np.float64)  # In float32, 0.49999997 + 0.5 is 1
    return np.trunc(wide + np.copysign(0.5, wide)).astype(np.int64)


class _RoiPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, corners, bins):
        cells = order_keys(_channels_last(features))
        height, width, depth = cells.shape
        columns, rows = roi_bins(corners[:, 0::2], bins, width), roi_bins(corners[:, 1::2], bins, height)
        ctx.save_for_backward(features)
        ctx.bins = columns, rows
        pooled = np.empty((len(corners), depth, bins * bins), cells.dtype)
        share_out(pool_rois, cells, corners, columns, rows, pooled)
        return torch.from_numpy(restore(pooled, cells)).view(features.dtype).view(len(corners), depth, bins, bins)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_pooled):
        (features,) = ctx.saved_tensors
        cells = order_keys(_channels_last(features))
        # Channels last, as the cells: reading the gradients one by one took longer than finding where they belong.
        grad_pooled = grad_pooled.float().flatten(2).transpose(1, 2).contiguous().numpy()
        grad_cells = np.zeros(cells.shape, np.float32)
        # Regions overlap, so threads share out the channels, not the regions.
        depth = cells.shape[2]
        parts = max(1, min(torch.get_num_threads(), depth // LEAST_CHANNELS))
        cuts = np.linspace(0, depth, parts + 1).astype(np.int64)
        in_threads(lambda first, end: scatter(cells, ctx.bins, (first, end), grad_pooled, grad_cells), cuts)
        return torch.from_numpy(grad_cells).permute(2, 0, 1).to(features.dtype), None, None


def by_torchvision(features: Tensor, rois: Tensor | np.ndarray, spatial_scale: float, bins: int) -> Tensor:
    """`roi_pool` on other devices than the CPU: torchvision says where the largest cells are."""
    import torchvision  # noqa: F401  (has the operator)

    # In float32, because torchvision takes corners in the dtype of the map. The first column is the number of the image.
    cells = features.float()
    rois = torch.nn.functional.pad(torch.as_tensor(rois, dtype=torch.float32, device=cells.device).reshape(-1, 4), (1, 0))
    places = torch.ops.torchvision.roi_pool(cells.detach()[None], rois, spatial_scale, bins, bins)[1]  # -1 for an empty bin
    # Gradients of an indexing are sorted before they are added. NOTE: torchvision's kernel adds them as its threads come.
    pooled = cells.flatten(1)[torch.arange(len(cells), device=cells.device)[:, None, None], places.clamp(min=0).long()]
    return torch.where(places < 0, 0, pooled).to(features.dtype)


def _channels_last(features: Tensor) -> np.ndarray:
    """[D x h x w] -> [h x w x D]; 16-bit floats as their bits."""
    features = features.detach().permute(1, 2, 0)
    return (features if features.dtype == torch.float32 else features.view(torch.int16)).numpy()


def roi_bins(corners: np.ndarray, bins: int, limit: int) -> np.ndarray:
    """Bins [N x n x 2] along a side of `limit` cells, of regions between `corners` [N x 2], inclusive; see `roi_pool`."""
    first = corners[:, :1]
    step = np.maximum(corners[:, 1:] - first + 1, 1).astype(np.float32) / np.float32(bins)
    edges = np.arange(bins + 1, dtype=np.float32) * step
    edges = np.stack([np.floor(edges[:, :-1]), np.ceil(edges[:, 1:])], axis=2).astype(np.int64)
    return np.clip(edges + first[:, :, None], 0, limit)
