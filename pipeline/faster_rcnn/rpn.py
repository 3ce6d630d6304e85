"""The region proposal network (Ren et al. 2015, section 3.1): from a conv map to boxes that may hold an object.

1. A 3 x 3 convolution, then two siblings: how much each anchor of a cell is an object, and how to move it there.
2. Training: log loss of 256 sampled anchors, plus smooth L1 loss of those that are objects (section 3.1.2).
3. Proposals (`proposal_layer.py` of rbgirshick/py-faster-rcnn): anchors are moved and clipped to the image; small ones go; of
   those that overlap the best stays.

NOTE: one score per anchor and a sigmoid, where the release has two and a softmax; the paper allows either (footnote in 3.1).

Shape shorthand: D channels, h x w cells of a map, A anchors per cell, N = h w A in all (by row, column, anchor), R sampled ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import boxes as box_algebra
from pipeline.faster_rcnn.anchors import BASE, RATIOS, SCALES, generate_anchors, grid_anchors
from pipeline.networks.backbones import STRIDE
from pipeline.networks.compute import apply_in_float32
from pipeline.networks.standard import map_standard
from pipeline.networks.whole_images import Scaling

LOSSES = ("object_loss", "anchor_loss")
SIGMA = 3.0  # smooth L1, in stage1_rpn_train.pt of rbgirshick/py-faster-rcnn
# Section 3.1: 256 values per cell for ZF, 512 for VGG-16, as their maps have; 512 for the deeper ResNets in their ports.
HIDDEN = {"vgg16": 512, "resnet50": 512, "resnet101": 512, "tiny": 128}
OTHERS_HIDDEN = 256
# Limit of the factor by which a side grows, so that a wild network makes no infinite boxes; as in torchvision.
LARGEST_GROWTH = 1000 / 16


@dataclass(frozen=True)
class ProposalSettings:
    """Defaults: lib/fast_rcnn/config.py of rbgirshick/py-faster-rcnn, TEST.RPN_*."""

    before_nms: int = 6000  # RPN_PRE_NMS_TOP_N; 0: all
    after_nms: int = 300  # RPN_POST_NMS_TOP_N
    nms_threshold: float = 0.7  # RPN_NMS_THRESH
    min_side: float = 16.0  # RPN_MIN_SIZE, in pixels of the image before scaling


class RPN(nn.Module):
    """Scores and deltas of the anchors of each cell of a map of `channels` channels.

    `shift` and `scale` [D], where `calibrate` has set them, standardise the channels of the map first.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, channels: int, hidden: int, scales: tuple[float, ...] = SCALES, ratios: tuple[float, ...] = RATIOS,
        stride: int = STRIDE,
    ):
        super().__init__()
        self.stride = stride  # pixels per cell of the map
        self.base_anchors = generate_anchors(scales, ratios, BASE)
        number = len(self.base_anchors)
        self.hidden = nn.Conv2d(channels, hidden, 3, padding=1)
        self.scores, self.deltas = nn.Conv2d(hidden, number, 1), nn.Conv2d(hidden, 4 * number, 1)
        for layer in (self.hidden, self.scores, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)  # rpn_conv/3x3, rpn_cls_score, rpn_bbox_pred in stage1_rpn_train.pt
            nn.init.zeros_(layer.get_parameter("bias"))
        self.register_buffer("shift", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def calibrate(self, maps: list[Tensor]) -> None:
        """Brings the channels that the network sees to mean 0 and deviation 1 over these maps [D x h x w].

        For trunks whose maps were never classified as they are: see `pipeline.networks.standard`.
        """
        shift, scale = map_standard(maps)
        self.shift.copy_(shift)
        self.scale.copy_(scale)

    def forward(self, conv_map: Tensor) -> tuple[Tensor, Tensor]:
        """Map [D x h x w] -> scores [N] before the sigmoid, float32 at least, and deltas [N x 4]."""
        values = (conv_map - self.shift[:, None, None]) * self.scale[:, None, None]
        values = nn.functional.relu(self.hidden(values.to(conv_map.dtype)[None]))
        scores, deltas = apply_in_float32(self.scores, values)[0], self.deltas(values)[0]
        return scores.permute(1, 2, 0).flatten(), deltas.permute(1, 2, 0).reshape(-1, 4)

    def anchors(self, height: int, width: int) -> np.ndarray:
        """All anchors of a map of `height` x `width` cells: [N x 4]."""
        return grid_anchors(self.base_anchors, height, width, self.stride)


def rpn_loss(scores: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The two losses [2], summed over sampled anchors: log loss, and smooth L1 of the deltas of objects.

    `scores` [R], `deltas` [R x 4], `labels` [R] 1 for an object, else 0; `targets` [R x 4], of which
    those of the background are left out.
    """
    object_loss = nn.functional.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype), reduction="sum")
    rows = torch.nonzero(labels)[:, 0]
    box_loss = nn.functional.smooth_l1_loss(deltas[rows], targets[rows], reduction="sum", beta=SIGMA**-2)
    return torch.stack([object_loss, box_loss])


def filter_proposals(
    scores: np.ndarray, deltas: np.ndarray, anchors: np.ndarray, size: tuple[float, float], *, min_side: np.ndarray | float,
    settings: ProposalSettings = ProposalSettings(),
) -> tuple[np.ndarray, np.ndarray]:
    """The proposals of one scaled image of `size` (height, width), best first: boxes float32 [k x 4], and their anchors [k].

    `scores` [N], `deltas` [N x 4], `anchors` [N x 4]; `min_side` is (of x, y), or one number, in pixels of the scaled image.
    NOTE: the release adds 1 to sides here and there; on exclusive edges these are the plain formulas.
    """
    deltas = np.asarray(deltas, np.float32)
    deltas = np.concatenate([deltas[:, :2], np.minimum(deltas[:, 2:], np.float32(np.log(LARGEST_GROWTH)))], axis=1)
    boxes = box_algebra.clip(box_algebra.decode(np.asarray(anchors, np.float32), deltas), *size)
    large = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= min_side).all(axis=1))
    best = large[np.argsort(-np.asarray(scores)[large], kind="stable")][: settings.before_nms or None]
    kept = best[box_algebra.nms(boxes[best], np.arange(len(best), 0, -1), settings.nms_threshold, settings.after_nms)]
    return boxes[kept], kept


def propose_regions(
    rpn: RPN, outputs: tuple[Tensor, Tensor], cells: tuple[int, ...], scaling: Scaling, settings: ProposalSettings
) -> np.ndarray:
    """Proposals from the `outputs` of `rpn` for a map of `cells` (rows, columns), in pixels of the image, best first: [k x 4]."""
    return scored_regions(rpn, outputs, cells, scaling, settings)[0]


def scored_regions(
    rpn: RPN, outputs: tuple[Tensor, Tensor], cells: tuple[int, ...], scaling: Scaling, settings: ProposalSettings
) -> tuple[np.ndarray, np.ndarray]:
    """As `propose_regions`, and the score of each [k]."""
    scores, deltas = (values.detach().float().cpu().numpy() for values in outputs)
    factors = np.array(scaling.factors, np.float32)
    boxes, kept = filter_proposals(
        scores, deltas, rpn.anchors(*cells), scaling.size, min_side=settings.min_side * factors, settings=settings
    )
    return (boxes / np.tile(factors, 2)).astype(np.float32), scores[kept]


def merge_proposals(views: Sequence[tuple[np.ndarray, np.ndarray]], settings: ProposalSettings) -> np.ndarray:
    """The proposals of several views of one image, boxes [k x 4] and scores [k] of each, as one list, best first: [k x 4].

    Of those that overlap the best stays, whatever its view.
    """
    boxes, scores = map(np.concatenate, zip(*views, strict=True))
    return boxes[box_algebra.nms(boxes, scores, settings.nms_threshold, settings.after_nms)]
