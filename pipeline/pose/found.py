"""The boxes that a detector gives to a split's objects, so that poses can be judged without the true boxes."""

import numpy as np

from pipeline import boxes as box_algebra
from pipeline.detection.detections import ImageDetections

LEAST_IOU = 0.5  # VOC's: above it a detection is a hit


def found_boxes(boxes: np.ndarray, labels: np.ndarray, detections: ImageDetections) -> np.ndarray:
    """The box that is found for each of an image's N objects: float64 [N x 4], NaN for an object that is not found.

    `boxes` [N x 4] and `labels` [N] are the true ones. The detections choose in the order of their scores: each takes, of the
    objects of its class that are still free, the one that it overlaps most, if their IoU is above LEAST_IOU.
    """
    chosen = np.full((len(boxes), 4), np.nan)
    if not len(boxes):
        return chosen
    overlaps = np.where(detections.labels[:, None] == labels, box_algebra.iou(detections.boxes, boxes), 0)
    for row in np.argsort(-detections.scores, kind="stable"):
        nearest = overlaps[row].argmax()
        if overlaps[row, nearest] > LEAST_IOU:
            chosen[nearest] = detections.boxes[row]
            overlaps[:, nearest] = 0
    return chosen
