"""Online hard example mining (Shrivastava et al. 2016), as R-FCN does it (Dai et al. 2016, section 2).

1. Every region of an image is labelled; there is no sampling.
2. The network computes the loss of each, without gradients.
3. The B regions with the largest losses are trained on.

NOTE: Shrivastava et al. suppress regions that overlap before they choose; R-FCN's release does not, nor is it done here.

Shape shorthand: R regions, C classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.fast_rcnn.sampling import Matches


@dataclass(frozen=True)
class HardExamples:
    """`regions` is B, the regions of an image that are trained on."""

    regions: int = 128  # roi_per_img of layer annotator_detector in train_agnostic_ohem.prototxt of YuwenXiong/py-R-FCN


def all_regions(matches: Matches, means: np.ndarray, deviations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes [R x 4], labels [R] and targets [R x 4] of all candidates of an image, as `draw_regions` gives them of a few.

    Whatever is not foreground is background.
    """
    labels = np.where(matches.foreground, matches.label, 0)
    targets, rows = np.zeros_like(matches.boxes), np.flatnonzero(matches.foreground)
    targets[rows] = (matches.target[rows] - means[labels[rows] - 1]) / deviations[labels[rows] - 1]
    return matches.boxes, labels, targets


def region_losses(
    scores: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """The loss of each region [R]: of its class, plus of its box unless it is background. Arguments as of `fast_rcnn_loss`."""
    losses = nn.functional.cross_entropy(scores, labels, class_weights, reduction="none")
    foreground = torch.nonzero(labels > 0)[:, 0]
    chosen = deltas[foreground, labels[foreground] - 1]
    box_losses = nn.functional.smooth_l1_loss(chosen, targets[foreground], reduction="none", beta=1.0).sum(1)
    return losses.index_add(0, foreground, box_losses)


def hardest(losses: np.ndarray, count: int) -> np.ndarray:
    """The numbers of the `count` largest of `losses` [R], in order of the regions; of equal losses the first go in first."""
    return np.sort(np.argsort(-losses, kind="stable")[:count])
