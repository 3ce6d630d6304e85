"""From the boxes of several hierarchies to one list, highest priority first.

Shape shorthand: n boxes of one hierarchy, N proposals.
"""

from typing import NamedTuple

import numpy as np

from pipeline.boxes import clip, keep_apart

# selective_search_boxes.m of rbgirshick/rcnn (minBoxWidth): a box with a shorter side is dropped; pixels.
MIN_SIDE = 20


def merge_hierarchies(hierarchies: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """The boxes of all hierarchies [n x 4] in one list, highest priority first.

    A box's priority is its position counted from the last merge of its hierarchy (1 for the largest region), times a random
    number in [0, 1); smallest first (Uijlings et al. 2013, section 4.3; selective_search_boxes.m).
    """
    boxes = np.concatenate([np.zeros((0, 4)), *hierarchies])
    position = np.concatenate([np.zeros(0), *(np.arange(len(hierarchy), 0, -1) for hierarchy in hierarchies)])
    return boxes[np.argsort(position * generator.random(len(boxes)), kind="stable")]


class MaxOverlap(NamedTuple):
    """Two boxes are near repetitions at an IoU above `small` where the side (root of the area) of the second is at most
    `small_side` pixels, above `large` where it is at least `large_side`, and in between above what lies between them."""

    small: float
    small_side: float
    large: float
    large_side: float


# Chosen on PASCAL VOC trainval: an object of 20 pixels is found as well by boxes that lie far apart, one of 300 is not.
NEAR = MaxOverlap(0.78, 20, 0.95, 300)


def select_boxes(
    boxes: np.ndarray,
    size: tuple[int, int],
    max_boxes: int | None = None,
    *,
    min_side: float = MIN_SIDE,
    near: MaxOverlap | None = None,
) -> np.ndarray:
    """The first `max_boxes` of `boxes` [N x 4] in an image of `size` (height, width), without useless ones; float32.

    Left out are boxes with a side under `min_side` pixels, once cut at the image's border, and those equal to one before them.
    With `near`, boxes that nearly repeat one before them are left out too. `max_boxes` None takes all.
    """
    height, width = size
    boxes = clip(boxes, height, width)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= min_side).all(axis=1)]
    _, first = np.unique(_number(boxes, height, width), return_index=True)
    boxes = boxes[np.sort(first)].astype(np.float32)
    limit = len(boxes) if max_boxes is None else min(max_boxes, len(boxes))
    if near is None:
        return boxes[:limit]
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    limits = np.interp(sides, (near.small_side, near.large_side), (near.small, near.large)).astype(np.float32)
    return boxes[keep_apart(boxes, limits, limit, False)]


def _number(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """One number for each of the whole `boxes` inside an image, equal for equal boxes."""
    x1, y1, x2, y2 = boxes.astype(np.int64).T
    return ((x1 * (height + 1) + y1) * (width + 1) + x2) * (height + 1) + y2
