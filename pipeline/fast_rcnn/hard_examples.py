"""Online hard example mining (Shrivastava et al. 2016), as R-FCN does it (Dai et al. 2016, section 2).

1. Every region of an image is labelled; there is no sampling.
2. The network computes the loss of each, without gradients.
3. The B regions with the largest losses are trained on.

NOTE: Shrivastava et al. suppress regions that overlap before they choose; R-FCN's release does not, nor is it done here.

Shape shorthand: R regions, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.fast_rcnn.losses import fast_rcnn_loss


@dataclass(frozen=True)
class HardExamples:
    """`regions` is B, the regions of an image that are trained on."""

    regions: int = 128  # roi_per_img of layer annotator_detector in train_agnostic_ohem.prototxt of YuwenXiong/py-R-FCN


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


def hard_losses(
    of_regions: Callable[[np.ndarray], tuple[Tensor, Tensor]], rois: np.ndarray, labels: Tensor, targets: Tensor, count: int,
    *, class_weights: Tensor | None = None,
) -> Tensor:
    """The two losses [2] of the `count` hardest regions of an image, per region; `of_regions(rois)` gives scores and deltas.

    `rois` [R x 4], `labels` [R], `targets` [R x 4] are those of all regions. The loss of the boxes is divided by `count`, however
    few regions there are, as in the release of R-FCN.
    """
    with torch.no_grad():
        losses = region_losses(*of_regions(rois), labels, targets, class_weights)
    rows = hardest(losses.cpu().numpy(), count)
    chosen = torch.from_numpy(rows).to(labels.device)
    losses = fast_rcnn_loss(*of_regions(rois[rows]), labels[chosen], targets[chosen], class_weights)
    per_region = losses / max(1, len(rows))
    return per_region * torch.tensor([1, len(rows) / count], device=labels.device)
