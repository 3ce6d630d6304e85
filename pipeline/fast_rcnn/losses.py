"""The losses of Fast R-CNN (Girshick 2015, section 2.3): of the class and of the box.

Shape shorthand: R regions, C classes.
"""

import torch
from torch import Tensor, nn

LOSSES = ("class_loss", "box_loss")


def fast_rcnn_loss(
    scores: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """The two losses [2], summed over regions: log loss, and smooth L1 of the true class's deltas (section 2.3).

    `scores` [R x C + 1], `deltas` [R x C x 4], `labels` [R], `targets` [R x 4], of which those of the background are left out;
    `class_weights` [C + 1] are factors of the log loss.
    """
    class_loss = nn.functional.cross_entropy(scores, labels, class_weights, reduction="sum")
    foreground = torch.nonzero(labels > 0)[:, 0]
    chosen = deltas[foreground, labels[foreground] - 1]
    box_loss = nn.functional.smooth_l1_loss(chosen, targets[foreground], reduction="sum", beta=1.0)
    return torch.stack([class_loss, box_loss])
