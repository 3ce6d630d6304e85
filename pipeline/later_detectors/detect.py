"""Detections of one image by one of torchvision's detectors, as the other chains return them.

Shape shorthand: k detections, m x m cells of a mask.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import clip_boxes_to_image

from pipeline.detection.candidates import COLUMNS, Candidates, Limits
from pipeline.detection.detections import LeftOut
from pipeline.later_detectors.network import LaterDetector
from pipeline.networks.compute import mixed_precision

ALL = 10**9
NARROWEST = 16  # longer side by shorter side: a narrower image gets a border, or torchvision would scale it to no pixel at all


@dataclass(frozen=True, eq=False)
class MaskedCandidates(Candidates):
    """Candidates with `masks` uint8 [k x m x m]: 255 times the probability of each cell of the box."""

    masks: np.ndarray | None = None

    def without_suppressed(self) -> "MaskedCandidates":
        masks = None if self.masks is None else self.masks[self.survives]
        return replace(self, masks=masks, **{name: getattr(self, name)[self.survives] for name in COLUMNS})


class BoxTransform(GeneralizedRCNNTransform):
    """torchvision's, but each mask keeps the cells of its box: masks are put into the image only where they are drawn."""

    def postprocess(self, result: list[dict], image_shapes: list, original_image_sizes: list) -> list[dict]:
        for detections, size, original in zip(result, image_shapes, original_image_sizes):
            detections["boxes"] = resize_boxes(detections["boxes"], size, original)
        return result


class LaterDetection:
    """Detections in one image. `min_score` is the lowest score of a detection."""

    def __init__(self, detector: LaterDetector, device: torch.device, precision: str, limits: Limits, min_score: float):
        self.detector = detector.eval().to(device).to(memory_format=torch.channels_last)
        self.device, self.precision, self.limits = device, precision, limits
        detector.network.transform.__class__ = BoxTransform
        stage = detector.second_stage
        stage.score_thresh, stage.nms_thresh, stage.detections_per_img = min_score, limits.nms_threshold, ALL

    @property
    def num_classes(self) -> int:
        return self.detector.num_classes

    def detect(self, pixels: np.ndarray) -> MaskedCandidates:
        """The candidates in `pixels`, uint8 RGB [height x width x 3]."""
        height, width, _ = pixels.shape
        rows, columns = (max(0, -(-max(height, width) // NARROWEST) - side) for side in (height, width))
        pixels = np.pad(pixels, ((0, rows), (0, columns), (0, 0)))
        values = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(self.device).float().div(255)
        with torch.inference_mode(), mixed_precision(self.device, self.precision):
            (detections,) = self.detector([values])
        detections["boxes"] = clip_boxes_to_image(detections["boxes"], (height, width))
        return limited({name: value.float().cpu() for name, value in detections.items()}, self.limits)


def limited(detections: dict[str, Tensor], limits: Limits) -> MaskedCandidates:
    """torchvision's detections, which are suppressed already, within `limits`.

    NOTE: `max_per_image` counts the detections of a class after suppression here: torchvision suppresses by itself.
    """
    labels, scores, boxes = (detections[name].numpy() for name in ("labels", "scores", "boxes"))
    labels = labels.astype(np.int32) - 1  # torchvision counts classes from 1
    order = np.lexsort((-scores, labels))
    order = order[labels[order] >= 0]  # RetinaNet and FCOS have a score of class 0, which stands for nothing
    labels, scores, boxes = labels[order], scores[order].astype(np.float32), boxes[order].astype(np.float32)
    place = np.arange(len(labels)) - np.searchsorted(labels, labels)  # among the detections of its class
    stays = place < (limits.max_per_image or ALL)
    survives = np.ones(int(stays.sum()), bool)
    surplus = np.argsort(-scores[stays], kind="stable")[limits.max_detections or ALL:]
    survives[surplus] = False
    masks = None
    if "masks" in detections:
        masks = np.rint(detections["masks"][:, 0].numpy() * 255).astype(np.uint8)[order][stays]
    left_out = LeftOut(0, int((~stays).sum()), len(surplus))
    return MaskedCandidates(labels[stays], scores[stays], boxes[stays], survives, left_out, masks)
