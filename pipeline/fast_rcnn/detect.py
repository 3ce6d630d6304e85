"""Detection with Fast R-CNN's network or R-FCN's, in one view of an image or in several.

1. The trunk makes a map of each view: the image at some scales, and with `mirror` its mirror image at each of them.
2. A region is pooled from the scale at which its area comes closest to that of the crops that the backbone was made for
   (Girshick 2015, section 5.2, as SPP-net does: 224 x 224). Regions that pool the same cells are one.
3. Of a region and its mirror image scores and boxes are averaged.
4. Suppression class by class.

NOTE: no release of these networks mirrors images in detection. Detectron does (TEST.BBOX_AUG): `AVG` for scores and boxes of
given regions is what is done here; its default is the union of all detections.

Shape shorthand: n regions of one image, C classes, D channels, h x w cells of a map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline import boxes as box_algebra
from pipeline.detection.candidates import RELEASE_LIMITS, Candidates, Limits, top_scoring
from pipeline.fast_rcnn.region_network import RegionNetwork
from pipeline.networks.whole_images import Scaling, choose_scales, conv_map, mirror_boxes, rois_of


@dataclass(frozen=True)
class Views:
    """The shorter sides that an image is scaled to, the limit of the longer one, and whether its mirror images are seen too."""

    scales: tuple[int, ...]
    longest: int
    mirror: bool = False


@dataclass(frozen=True)
class SeenMap:
    """The map [D x h x w] of one view."""

    values: Tensor
    scaling: Scaling
    mirrored: bool = False


class FastRCNNDetector:
    """Detections of one image from its pixels and proposals. `model`, Fast R-CNN's or R-FCN's, is ready for inference.

    `views` replace the one scale of `shorter` and `longest`. Regions that pool the same cells are one (DEDUP_BOXES of the
    release's `test.py`).
    NOTE: of those only the first stays; in the release all are candidates, with the scores and boxes of the first. Candidates
    are chosen as for R-CNN (`top_scoring`), so that the chains differ in nothing else; the release's limits differ a little.
    """

    def __init__(
        self, model: RegionNetwork, device: torch.device, shorter: int, longest: int, limits: Limits = RELEASE_LIMITS, *,
        views: Views | None = None,
    ):
        self.model, self.device, self.limits = model, device, limits
        self.views = views or Views((shorter,), longest)

    def detect(self, pixels: np.ndarray, proposals: np.ndarray) -> Candidates:
        """The candidates among `proposals` [n x 4] in `pixels`, uint8 RGB [height x width x 3]."""
        height, width, _ = pixels.shape
        with torch.inference_mode():
            return self.detect_in_maps(self.maps(pixels), proposals, height, width)

    def maps(self, pixels: np.ndarray) -> list[SeenMap]:
        """The maps of all views, scale by scale."""
        height, width, _ = pixels.shape
        seen = []
        for scale in self.views.scales:
            scaling = Scaling.of(height, width, scale, self.views.longest)
            for mirrored in (False, True) if self.views.mirror else (False,):
                values = conv_map(self.model.backbone, pixels, scaling, self.device, mirror=mirrored)
                seen.append(SeenMap(values, scaling, mirrored))
        return seen

    def detect_in_maps(self, seen: Sequence[SeenMap], proposals: np.ndarray, height: int, width: int) -> Candidates:
        """The candidates among `proposals` [n x 4], given the maps of their image of `height` x `width` pixels."""
        proposals = np.asarray(proposals, np.float32)
        scalings = list(dict.fromkeys(view.scaling for view in seen))
        chosen = np.zeros(len(proposals), np.int64)
        if len(scalings) > 1:
            chosen = choose_scales(proposals, scalings, self.model.backbone.crop_size)
        parts = []
        for number in np.unique(chosen).tolist() or [0]:
            scaling = scalings[number]
            views = [view for view in seen if view.scaling == scaling]
            parts.append(self._outputs(views, proposals[chosen == number], width))
        scores, moved = map(np.concatenate, zip(*parts, strict=True))
        return top_scoring(scores, box_algebra.clip(moved, height, width), *self.limits)

    def _outputs(self, views: Sequence[SeenMap], proposals: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores [n x C] and moved boxes [n x C x 4] of the distinct `proposals`: the means of the `views` of one scale."""
        boxes = proposals[self.model.distinct(rois_of(proposals, views[0].scaling))]
        outputs = [self._outputs_in(view, boxes, width) for view in views]
        if len(outputs) == 1:
            return outputs[0]
        scores, moved = (np.stack(values).mean(axis=0, dtype=np.float32) for values in zip(*outputs, strict=True))
        return np.asarray(scores), np.asarray(moved)

    def _outputs_in(self, view: SeenMap, boxes: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The same in one view; boxes are in pixels of the image that is not mirrored."""
        seen = mirror_boxes(boxes, width) if view.mirrored else boxes
        outputs, deltas = self.model.of_regions(self.model.maps(view.values), rois_of(seen, view.scaling))
        scores = outputs.softmax(dim=1)[:, 1:].cpu().numpy()
        moved = move_boxes(seen, deltas.float().cpu().numpy())
        if view.mirrored:
            moved = mirror_boxes(moved.reshape(-1, 4), width).reshape(moved.shape)
        return scores, moved


def move_boxes(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Each class's box of each region: [n x 4], [n x C x 4] -> float32 [n x C x 4]."""
    rows = np.repeat(boxes, deltas.shape[1], axis=0)
    return box_algebra.decode(rows, deltas.reshape(-1, 4)).reshape(deltas.shape).astype(np.float32)
