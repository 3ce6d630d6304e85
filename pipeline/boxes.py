"""Box algebra.

Boxes are float arrays [N x 4] of (x1, y1, x2, y2) in pixels, 0-based, with x2 and y2 *exclusive* edges: a box that covers the
pixels 3 and 4 has x1 = 3, x2 = 5. The releases count in inclusive corners and add 1 to every width; on exclusive edges their
IoU, NMS and box encoding are the plain formulas below.

Shape shorthand: N, M boxes; K kept boxes.
"""

import numpy as np


def area(boxes: np.ndarray) -> np.ndarray:
    """Areas [N] in square pixels; 0 for an empty or reversed box."""
    return np.maximum(boxes[..., 2] - boxes[..., 0], 0) * np.maximum(boxes[..., 3] - boxes[..., 1], 0)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair: [N x 4], [M x 4] -> float64 [N x M]; 0 where both are empty."""
    first = np.asarray(first, np.float64).reshape(-1, 1, 4)
    second = np.asarray(second, np.float64).reshape(1, -1, 4)
    corners = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    intersection = area(np.concatenate(corners, axis=-1))
    union = area(first) + area(second) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def clip(boxes: np.ndarray, height: float, width: float) -> np.ndarray:
    """The parts of `boxes` [... x 4] inside an image of `height` x `width` pixels."""
    limits = np.array([width, height, width, height], boxes.dtype)
    return np.minimum(np.maximum(boxes, 0), limits)


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression: indices [K] of the boxes kept, best score first.

    A box goes when its IoU with a better one that stayed is > `threshold`; one of exactly `threshold` stays, as in `nms.m` of
    rbgirshick/rcnn and in `py_cpu_nms.py`. Equal scores keep their order.
    """
    import torch
    from torchvision.ops import nms as torchvision_nms

    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    # Ranks instead of scores: torchvision sorts again, and ranks leave it no tie to break in its own way.
    ranks = torch.arange(len(order), 0, -1, dtype=torch.float64)
    kept = torchvision_nms(torch.from_numpy(np.asarray(boxes, np.float64)[order]), ranks, threshold)
    return order[kept.numpy()]


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
