"""Detection by sliding windows: score every window of every scale, then merge the boxes of those that show an object.

1. The image is scaled to several sizes.
2. Every window is classified and has a box: densely, or naively, window by window.
3. For each class the windows whose probability reaches `min_score` are merged (OverFeat), or the worse of two is suppressed.

NOTE: OverFeat takes the boxes of the best classes of each scale; a threshold suits images with no object, or with several.

Shape shorthand: C classes, m x n positions of windows of one scale, N windows of all scales.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline import boxes as box_algebra
from pipeline.detection.candidates import RELEASE_LIMITS, Candidates, Limits, top_scoring
from pipeline.detection.detections import LeftOut
from pipeline.networks.whole_images import Scaling
from pipeline.sliding_window.layout import WindowLayout, framed_input, scalings
from pipeline.sliding_window.merging import merge_boxes
from pipeline.sliding_window.network import WindowNetwork
from pipeline.sliding_window.sampling import boxes_of_edges

GREEDY, NMS = "greedy", "nms"
CROPS_AT_A_TIME = 64


class WindowSettings(NamedTuple):
    """How windows are taken and become detections; `scales` are shorter sides of the image, in sides of a window.

    `merge_threshold` is the largest match score at which boxes are merged.
    """

    scales: tuple[float, ...]
    min_score: float
    merge: str = GREEDY
    merge_threshold: float = 0.7


@dataclass(frozen=True, eq=False)
class ScaleScores:
    """All windows of one scale: probabilities float32 [(C + 1) x m x n], the background first, and boxes [m x n x 4] in pixels
    of the image."""

    scaling: Scaling
    probabilities: np.ndarray
    boxes: np.ndarray


class SlidingWindowDetector:
    """Detections of one image from its pixels. `model` is ready for inference."""

    def __init__(self, model: WindowNetwork, device: torch.device, settings: WindowSettings, limits: Limits = RELEASE_LIMITS):
        self.model, self.device, self.settings, self.limits = model, device, settings, limits
        self.layout: WindowLayout = model.layout

    def detect(self, pixels: np.ndarray) -> Candidates:
        """The detections in `pixels`, uint8 RGB [height x width x 3]."""
        return self.merge(list(self.score(pixels)), pixels.shape[:2])

    def score(self, pixels: np.ndarray, *, naive: bool = False) -> Iterator[ScaleScores]:
        """Every window of each scale: from one pass over the image or, if `naive`, from a pass for each window."""
        for scaling in scalings(pixels.shape[0], pixels.shape[1], self.layout, self.settings.scales):
            image = framed_input(pixels, scaling, self.layout, self.model.norm, self.device)
            scores, edges = self.one_by_one(image) if naive else self.at_once(image)
            grid = scores.shape[1:]
            windows = self.layout.windows(*grid)
            boxes = boxes_of_edges(windows, edges.flatten(1).T.float().cpu().numpy())
            boxes = self.layout.image_boxes(boxes, scaling).astype(np.float32).reshape(*grid, 4)
            yield ScaleScores(scaling, scores.float().softmax(dim=0).cpu().numpy(), boxes)

    @torch.no_grad()
    def at_once(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Scores before the softmax [(C + 1) x m x n] and edges [4 x m x n] of all windows of a framed image, densely."""
        scores, edges = self.model(image.to(self.model.map_scale.dtype))
        return scores[0], edges[0]

    @torch.no_grad()
    def one_by_one(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The same as `at_once`, from crops of the framed image."""
        side, stride = self.layout.side, self.layout.stride
        crops = image[0].unfold(1, side, stride).unfold(2, side, stride)  # a view [3 x m x n x S x S]
        grid = crops.shape[1:3]
        batches = torch.cartesian_prod(*map(torch.arange, grid)).split(CROPS_AT_A_TIME)
        parts = [
            self.model.of_windows(
                crops[:, row, column].transpose(0, 1).to(self.model.map_scale.dtype, memory_format=torch.channels_last)
            )
            for row, column in (batch.unbind(1) for batch in batches)
        ]
        scores, edges = (torch.cat(values).T.unflatten(1, grid) for values in zip(*parts, strict=True))
        return scores, edges

    def merge(self, by_scale: list[ScaleScores], size: tuple[int, int]) -> Candidates:
        """The detections among the windows of all scales of an image of `size` (height, width)."""
        objects = [scale.probabilities[1:] for scale in by_scale]
        probabilities = np.concatenate([of_scale.reshape(len(of_scale), -1) for of_scale in objects], axis=1)
        boxes = box_algebra.clip(np.concatenate([scale.boxes.reshape(-1, 4) for scale in by_scale]), *size)
        scores = np.where(probabilities >= self.settings.min_score, probabilities, -np.inf).T
        if self.settings.merge == NMS:
            return top_scoring(scores, boxes, *self.limits)
        # Without suppression (IoU above 1), for the limits alone.
        windows = top_scoring(scores, boxes, self.limits.max_per_image, nms_threshold=1.0)
        merged = []
        for label in range(scores.shape[1]):
            rows = windows.class_index == label
            merged.append(merge_boxes(windows.boxes[rows], windows.score[rows], self.settings.merge_threshold))
        score = np.concatenate([confidence for _, confidence in merged])
        survives = np.ones(len(score), bool)
        surplus = np.argsort(-score, kind="stable")[self.limits.max_detections or len(score):]
        survives[surplus] = False
        class_index = np.repeat(np.arange(len(merged), dtype=np.int32), [len(confidence) for _, confidence in merged])
        left_out = LeftOut(0, windows.left_out.candidates, len(surplus))
        return Candidates(class_index, score, np.concatenate([corners for corners, _ in merged]), survives, left_out)
