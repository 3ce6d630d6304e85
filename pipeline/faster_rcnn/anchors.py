"""Anchors of a region proposal network, and what each is trained to say (Ren et al. 2015, sections 3.1.1 and 3.1.2).

1. Every cell of the map has A anchors: boxes of some scales and ratios around it, in pixels of the scaled image.
2. Of those wholly inside the image, an anchor is an object when its IoU with one is >= 0.7, or the largest that an object has
   with any; it is background when its IoU with every object is < 0.3, unless it lies on a region to ignore. The others are not
   trained on.
3. A step trains on 256 of them: half objects, or fewer where there are fewer, the rest background.

Shape shorthand: A anchors per cell, N = h w A of a map of h x w cells (by row, column, anchor), n objects, r regions to ignore.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.matching import match_boxes, on_ignored

# generate_anchors.py of rbgirshick/py-faster-rcnn
BASE = 16
SCALES = (8.0, 16.0, 32.0)
RATIOS = (0.5, 1.0, 2.0)

OBJECT, BACKGROUND, IGNORED = 1, 0, -1
NOTHING = np.zeros((0, 4))


@dataclass(frozen=True)
class AnchorSettings:
    """Defaults: lib/fast_rcnn/config.py of rbgirshick/py-faster-rcnn, TRAIN.RPN_*."""

    object_overlap: float = 0.7  # RPN_POSITIVE_OVERLAP: IoU >= this
    background_overlap: float = 0.3  # RPN_NEGATIVE_OVERLAP: IoU < this
    sampled: int = 256  # RPN_BATCHSIZE, of one image
    object_fraction: float = 0.5  # RPN_FG_FRACTION


def generate_anchors(scales: Sequence[float] = SCALES, ratios: Sequence[float] = RATIOS, base: int = BASE) -> np.ndarray:
    """The anchors of the cell at the upper left corner: float64 [A x 4], by ratio, then scale.

    A square of `base` pixels is brought to each ratio (height / width), its area kept and its sides rounded half to even, then
    enlarged by each scale about its centre. Equal to the release's, whose corners are inclusive: there x2 and y2 are 1 less.
    """
    ratio = np.asarray(ratios, np.float64)
    width = np.rint(np.sqrt(base**2 / ratio))
    sides = np.stack([width, np.rint(width * ratio)], axis=1)[:, None] * np.asarray(scales, np.float64)[:, None]
    half = sides.reshape(-1, 2) / 2
    return np.concatenate([base / 2 - half, base / 2 + half], axis=1)


def grid_anchors(base_anchors: np.ndarray, height: int, width: int, stride: int) -> np.ndarray:
    """The anchors of all cells of a map of `height` x `width` cells, `stride` pixels apart: [N x 4]."""
    y, x = np.mgrid[:height, :width].reshape(2, -1, 1) * float(stride)
    return (np.concatenate([x, y, x, y], axis=1)[:, None] + base_anchors).reshape(-1, 4)


def inside(anchors: np.ndarray, height: float, width: float) -> np.ndarray:
    """Whether each of `anchors` [N x 4] lies wholly in an image of `height` x `width` pixels: bool [N]."""
    x1, y1, x2, y2 = anchors.T
    return (x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height)


def assign_targets(
    anchors: np.ndarray, objects: np.ndarray, height: float, width: float, settings: AnchorSettings = AnchorSettings(), *,
    ignored: np.ndarray = NOTHING,
) -> tuple[np.ndarray, np.ndarray]:
    """What each of `anchors` [N x 4] is, int8 [N], and the object of `objects` [n x 4] that it overlaps most, int64 [N].
    No anchor that lies on one of the regions `ignored` [r x 4] is background.

    The rules are applied in the order of `anchor_target_layer.py` of rbgirshick/py-faster-rcnn: background first, so that an
    object's best anchors are objects however little they overlap it. All anchors that tie for the best are.
    NOTE: the release trains on crowds as on objects here; it ignores them among Fast R-CNN's regions alone.
    NOTE: an object that no inside anchor overlaps has none; in the release all anchors that overlap nothing would be objects.
    """
    labels, nearest = np.full(len(anchors), IGNORED, np.int8), np.zeros(len(anchors), np.int64)
    rows = np.flatnonzero(inside(anchors, height, width))
    overlaps = match_boxes(anchors[rows], objects)
    nearest[rows] = overlaps.nearest
    labels[rows[overlaps.below(settings.background_overlap) & ~on_ignored(anchors[rows], ignored)]] = BACKGROUND
    labels[rows[overlaps.best_of_an_object() | overlaps.at_least(settings.object_overlap)]] = OBJECT
    return labels, nearest


def sample_anchors(
    labels: np.ndarray, generator: np.random.Generator, settings: AnchorSettings = AnchorSettings()
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the objects and of the backgrounds among `labels` [N] that a step trains on."""
    objects, backgrounds = np.flatnonzero(labels == OBJECT), np.flatnonzero(labels == BACKGROUND)
    wanted = min(round(settings.sampled * settings.object_fraction), len(objects))
    objects = generator.choice(objects, wanted, replace=False)
    return objects, generator.choice(backgrounds, min(settings.sampled - wanted, len(backgrounds)), replace=False)
