"""Matching boxes to the objects of an image: how much they overlap, which object each box overlaps most, from which overlap on.

IoU is that of `pipeline.boxes`. Each method has its own rule for the threshold, as its release has:

    `at_least`  IoU >= threshold    R-CNN's windows, Fast R-CNN's regions, anchors that are objects
    `above`     IoU > threshold     box regressors, VOC's evaluation
    `below`     IoU < threshold     anchors that are background

A region to ignore, such as a crowd, is no object. Nothing is trained on a box that lies on one (`on_ignored`).

Shape shorthand: N boxes, M objects, R regions to ignore, C classes.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.boxes import iou, share_inside
from pipeline.datasets.records import ImageRecord

TIE = 1e-9  # of two equal overlaps one may be less by so much of it, by rounding
IGNORED_SHARE = 0.7  # lib/datasets/coco.py of rbgirshick/py-faster-rcnn: crowd_thresh


@dataclass(frozen=True, eq=False)
class Overlaps:
    """`iou` float64 [N x M] of each box with each object."""

    iou: np.ndarray

    @cached_property
    def largest(self) -> np.ndarray:
        """The largest IoU of each box with an object: float64 [N], 0 without objects."""
        return self.iou.max(axis=1, initial=0)

    @cached_property
    def nearest(self) -> np.ndarray:
        """The object that each box overlaps most, the first of equals: int64 [N], 0 without objects."""
        return self.iou.argmax(axis=1) if self.iou.shape[1] else np.zeros(len(self.iou), np.int64)

    def at_least(self, threshold: float) -> np.ndarray:
        """Which boxes have an IoU >= `threshold` with an object: bool [N]."""
        return self.largest >= threshold

    def above(self, threshold: float) -> np.ndarray:
        """Which boxes have an IoU > `threshold` with an object: bool [N]."""
        return self.largest > threshold

    def below(self, threshold: float) -> np.ndarray:
        """Which boxes have an IoU < `threshold` with every object: bool [N]."""
        return self.largest < threshold

    def best_of_an_object(self) -> np.ndarray:
        """Which boxes overlap an object as much as any box does: bool [N]. An object that no box overlaps has none."""
        best = self.iou.max(axis=0, initial=0)
        return ((self.iou >= best * (1 - TIE)) & (best > 0)).any(axis=1)

    def by_class(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """The largest IoU of each box with an object of each class, 0 without: float32 [N x C]. `labels` [M] of the objects."""
        largest = np.zeros((len(self.iou), num_classes), np.float32)
        for label in np.unique(labels):
            largest[:, label] = self.iou[:, labels == label].max(axis=1)
        return largest


def match_boxes(boxes: np.ndarray, objects: np.ndarray) -> Overlaps:
    """The overlaps of `boxes` [N x 4] with `objects` [M x 4]."""
    return Overlaps(iou(boxes, objects))


def on_ignored(boxes: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Which of `boxes` [N x 4] have a share > 0.7 of their own area in one of `regions` to ignore [R x 4]: bool [N].

    The class of a region does not matter (`_filter_crowd_proposals` in the release's coco.py).
    """
    return share_inside(boxes, regions).max(axis=1, initial=0) > IGNORED_SHARE


def trainable(proposals: np.ndarray, image: ImageRecord) -> np.ndarray:
    """Those of an image's `proposals` [N x 4] that do not lie on a region to ignore."""
    return proposals[~on_ignored(proposals, image.ignored_boxes)]
