"""Box algebra.

Boxes are float arrays [N x 4] of (x1, y1, x2, y2) in pixels, 0-based, with x2 and y2 *exclusive* edges: a box that covers the
pixels 3 and 4 has x1 = 3, x2 = 5. The releases count in inclusive corners and add 1 to every width; on exclusive edges their
IoU, NMS and box encoding are the plain formulas below. `to_inclusive` and `from_inclusive` convert where a release's own numbers
are followed.

Shape shorthand: N, M boxes; K kept boxes.
"""

import numpy as np
from numba import njit


def to_inclusive(boxes: np.ndarray, first: int = 0) -> np.ndarray:
    """`boxes` [... x 4] by the centres of their corner pixels, as the releases have them: x2 and y2 belong to the box.

    Pixels count from `first`: 1 in MATLAB and VOC. In the type of `boxes`. Inverse of `from_inclusive`.
    """
    return boxes + np.array([first, first, first - 1, first - 1], boxes.dtype)


def from_inclusive(corners: np.ndarray, first: int = 0) -> np.ndarray:
    """The boxes [... x 4] whose corner pixels are `corners`, which count from `first`. Inverse of `to_inclusive`."""
    return corners + np.array([-first, -first, 1 - first, 1 - first], corners.dtype)


def area(boxes: np.ndarray) -> np.ndarray:
    """Areas [N] in square pixels; 0 for an empty or reversed box."""
    return np.maximum(boxes[..., 2] - boxes[..., 0], 0) * np.maximum(boxes[..., 3] - boxes[..., 1], 0)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair: [N x 4], [M x 4] -> float64 [N x M]; 0 where both are empty."""
    first, second, intersection = _pairs(first, second)
    union = area(first) + area(second) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def share_inside(boxes: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """The share of its own area that each of `boxes` [N x 4] has in each of `regions` [M x 4]: float64 [N x M], 0 where empty."""
    boxes, _, intersection = _pairs(boxes, regions)
    return np.divide(intersection, area(boxes), out=np.zeros_like(intersection), where=area(boxes) > 0)


def _pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both in float64, as [N x 1 x 4] and [1 x M x 4], and the area that each pair shares [N x M]."""
    first = np.asarray(first, np.float64).reshape(-1, 1, 4)
    second = np.asarray(second, np.float64).reshape(1, -1, 4)
    corners = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    return first, second, area(np.concatenate(corners, axis=-1))


def clip(boxes: np.ndarray, height: float, width: float) -> np.ndarray:
    """The parts of `boxes` [... x 4] inside an image of `height` x `width` pixels."""
    limits = np.array([width, height, width, height], boxes.dtype)
    return np.minimum(np.maximum(boxes, 0), limits)


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, limit: int | None = None) -> np.ndarray:
    """Greedy non-maximum suppression: indices [K] of the boxes kept, best score first; the first `limit` of them.

    A box goes when its IoU with a better one that stayed is > `threshold`; one of exactly `threshold` stays, as in `nms.m` of
    rbgirshick/rcnn and in `py_cpu_nms.py`. Equal scores keep their order.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    corners = np.ascontiguousarray(np.asarray(boxes, np.float64).reshape(-1, 4)[order])
    thresholds = np.full(len(order), threshold, np.float64)
    return order[keep_apart(corners, thresholds, len(order) if limit is None else min(limit, len(order)), True)]


@njit(nogil=True, cache=True)
def keep_apart(boxes, thresholds, limit, is_exact):
    """Indices of the first `limit` of `boxes` [N x 4] that stay.

    A box goes when its IoU with one kept before it is above its own of `thresholds` [N]. All is computed in the one type of both.
    Shared areas are compared with products, which is four times as fast as dividing but rounds otherwise. With `is_exact` those
    that come near the threshold are divided as well.
    """
    number = boxes.dtype.type
    zero, margin = number(0), number(1 - 1e-12) if is_exact else number(1)
    kept = np.empty(limit, np.int64)
    corners = np.zeros((5, limit), boxes.dtype)  # x1, y1, x2, y2 and area of those kept, side by side
    count = 0
    for candidate in range(len(boxes)):
        if count == limit:
            break
        x1, y1, x2, y2 = boxes[candidate]
        threshold = thresholds[candidate]
        area = max(x2 - x1, zero) * max(y2 - y1, zero)
        # IoU > threshold, in other words: shared area > share x the sum of both areas.
        share = threshold / (number(1) + threshold) * margin
        is_near = False
        for block in range(0, count, 64):  # in blocks that the compiler vectorises
            end, close = min(block + 64, count), 0
            for before in range(block, end):
                width = min(x2, corners[2, before]) - max(x1, corners[0, before])
                height = min(y2, corners[3, before]) - max(y1, corners[1, before])
                shared = max(width, zero) * max(height, zero)
                close += shared > share * (area + corners[4, before])
            if close and is_exact:
                for before in range(block, end):
                    width = min(x2, corners[2, before]) - max(x1, corners[0, before])
                    height = min(y2, corners[3, before]) - max(y1, corners[1, before])
                    shared = max(width, zero) * max(height, zero)
                    union = area + corners[4, before] - shared
                    is_near = is_near or (union > 0 and shared / union > threshold)
            elif close:
                is_near = True
            if is_near:
                break
        if not is_near:
            corners[0, count], corners[1, count], corners[2, count], corners[3, count] = x1, y1, x2, y2
            corners[4, count] = area
            kept[count] = candidate
            count += 1
    return kept[:count]


def encode(boxes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Regression targets (dx, dy, dw, dh) [N x 4] that take `boxes` [N x 4] to `targets` [N x 4].

    dx, dy are shifts of the centre in units of the box's width and height; dw, dh are logarithms of the size ratios
    (Girshick et al. 2014, appendix C). Inverse of `decode`. Sides must be > 0.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    target_size = targets[:, 2:] - targets[:, :2]
    shift = (targets[:, :2] + 0.5 * target_size) - (boxes[:, :2] + 0.5 * size)
    return np.concatenate([shift / size, np.log(target_size / size)], axis=1)


def decode(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Boxes [N x 4] that `deltas` [N x 4] make of `boxes` [N x 4]; not clipped. Inverse of `encode`."""
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + 0.5 * size + deltas[:, :2] * size
    half = 0.5 * np.exp(deltas[:, 2:]) * size
    return np.concatenate([centre - half, centre + half], axis=1)
