"""SPP-net (He et al. 2014): features of a region are pooled from the map of the whole image, in a pyramid of grids (section 4).

1. The trunk's map of the image, at one scale or several (`conv_map`). Of several scales a region takes the one at which its area
   comes closest to that of the crops that the backbone was trained on (section 3.3: 224 x 224).
2. The region's window of the map (appendix A) is max-pooled into 6 x 6, 3 x 3, 2 x 2 and 1 x 1 bins: 50 D values (section 4.1).

3. Fully connected layers on the pyramid, which are fine-tuned (`finetune`). A backbone without such layers has none here.

The SVMs on the last of these layers, and the box regressors on the pyramid, are R-CNN's own. The trunk is never fine-tuned: it
may have been run before. Of negatives that pool the same cells of an image one is trained on (`repeated_regions`).
NOTE: the paper leaves out negatives that overlap each other by more than 0.7; its release those that pool the same cells.

Shape shorthand: n regions of one image, D channels, h x w cells of a map.
"""

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.networks.backbones import Backbone, MapView
from pipeline.networks.map_store import StoredMap
from pipeline.networks.max_pooling import distinct
from pipeline.networks.whole_images import Scaling, choose_scales, conv_map
from pipeline.spp_net.pyramid_pooling import map_windows, pyramid_pool

LEVELS = (1, 2, 3, 6)  # section 4.1: 50 bins
SCALES = (688,)  # section 4.2: min(w, h) of single-scale detection; of multi-scale: 480, 576, 688, 864, 1200


def pyramid_size(channels: int, levels: Sequence[int] = LEVELS) -> int:
    """How many values a region has."""
    return channels * sum(level * level for level in levels)


def pyramid_features(
    maps: Sequence[StoredMap], boxes: np.ndarray, crop_size: int, view: MapView, levels: Sequence[int] = LEVELS
) -> np.ndarray:
    """Features of `boxes` [n x 4] of one image, pooled from its maps, one a scale: [n x D (1 + 4 + 9 + 36)] in the maps' type.

    `crop_size` and `view` are the backbone's. A row holds level after level; a level its bins row by row; a bin its channels.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    features = np.empty((len(boxes), pyramid_size(maps[0].cells.shape[2], levels)), maps[0].cells.dtype)
    chosen = choose_scales(boxes, [stored.scaling for stored in maps], crop_size)
    for number, stored in enumerate(maps):
        rows = np.flatnonzero(chosen == number)
        features[rows] = pool_regions(stored, boxes[rows], view, levels)
    return features


def pool_regions(stored: StoredMap, boxes: np.ndarray, view: MapView, levels: Sequence[int] = LEVELS) -> np.ndarray:
    """As `pyramid_features`, of one map."""
    return pyramid_pool(stored.cells, region_windows(stored, boxes, view), tuple(levels))


def region_windows(stored: StoredMap, boxes: np.ndarray, view: MapView) -> np.ndarray:
    """The cells of a map from which `boxes` [n x 4] of its image are pooled; see `map_windows`."""
    height, width, _ = stored.cells.shape
    return map_windows(stored.scaling.apply(boxes) - view.centre, height, width, view.stride)


def repeated_regions(maps: Sequence[StoredMap], boxes: np.ndarray, crop_size: int, view: MapView) -> np.ndarray:
    """Which of `boxes` [n x 4] are pooled from the same cells of the same map as one before them: bool [n].

    `spp_features_convX_to_poolX.m` of ShaoqingRen/SPP_net, `dedup`.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    chosen = choose_scales(boxes, [stored.scaling for stored in maps], crop_size)
    repeated = np.zeros(len(boxes), bool)
    for number, stored in enumerate(maps):
        rows = np.flatnonzero(chosen == number)
        firsts, _ = distinct(region_windows(stored, boxes[rows], view))
        repeated[np.delete(rows, firsts)] = True
    return repeated


def stored_map(
    backbone: Backbone, pixels: np.ndarray, shorter: int, longest: int, device: torch.device, *, mirror: bool = False
) -> StoredMap:
    """The map of an image as a cache keeps it. `backbone` is ready for inference."""
    height, width, _ = pixels.shape
    scaling = Scaling.of(height, width, shorter, longest)
    with torch.inference_mode():
        values = conv_map(backbone, pixels, scaling, device, mirror=mirror)
        return StoredMap(values.permute(1, 2, 0).to(torch.float16).contiguous().cpu().numpy(), scaling)
