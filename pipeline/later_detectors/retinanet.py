"""RetinaNet (Lin et al., ICCV 2017): nine anchors at each cell of a feature pyramid, and the focal loss.

NOTE: where torchvision differs from the paper and Detectron, this follows them: anchors are exact, not rounded to whole pixels;
both losses are sums over the batch divided by its number of positives, not means over the images; the box loss is smooth L1 with
beta 0.11 in place of L1. As in both, an object's best anchors are positive whatever their IoU. torchvision's unused score of
class 0 stays: it is trained to be low, and its detections are dropped.

Shape shorthand: A anchors of an image, C classes.
"""

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou, sigmoid_focal_loss

SIDES = (32, 64, 128, 256, 512)  # of the anchors of the levels P3 to P7
OCTAVES = (0, 1 / 3, 2 / 3)
RATIOS = (0.5, 1.0, 2.0)  # height / width
GAMMA, ALPHA, BETA = 2.0, 0.25, 0.11
CANDIDATES = 1000  # anchors of a level that take part in suppression


class ExactAnchors(AnchorGenerator):
    """Anchors whose sides are not rounded."""

    def generate_anchors(
        self, scales: list, aspect_ratios: list, dtype: torch.dtype = torch.float32, device: torch.device | None = None,
    ) -> Tensor:
        heights = torch.as_tensor(aspect_ratios, dtype=torch.float64).sqrt()[:, None]
        sides = torch.as_tensor(scales, dtype=torch.float64)[None]
        widths, heights = (sides / heights).flatten(), (sides * heights).flatten()
        return (torch.stack([-widths, -heights, widths, heights], dim=1) / 2).to(device, dtype)


def paper_anchors() -> ExactAnchors:
    return ExactAnchors(tuple(tuple(side * 2**octave for octave in OCTAVES) for side in SIDES), (RATIOS,) * len(SIDES))


class PaperRetinaNet(RetinaNet):
    """torchvision's RetinaNet with the paper's anchors and loss. `num_outputs` counts the unused class 0."""

    def __init__(self, trunk: nn.Module, num_outputs: int, **settings):
        super().__init__(trunk, num_outputs, anchor_generator=paper_anchors(), topk_candidates=CANDIDATES, **settings)

    def compute_loss(self, targets: list[dict], head_outputs: dict[str, Tensor], anchors: list[Tensor]) -> dict[str, Tensor]:
        class_losses, box_losses, positives = [], [], 0
        for number, target in enumerate(targets):
            logits, deltas = (head_outputs[name][number].float() for name in ("cls_logits", "bbox_regression"))
            matches = match(self.proposal_matcher, target["boxes"], anchors[number])
            chosen = torch.where(matches >= 0)[0]
            positives += len(chosen)
            truth = torch.zeros_like(logits)
            truth[chosen, target["labels"][matches[chosen]]] = 1
            judged = matches != Matcher.BETWEEN_THRESHOLDS
            class_losses.append(sigmoid_focal_loss(logits[judged], truth[judged], ALPHA, GAMMA, reduction="sum"))
            wanted = self.box_coder.encode_single(target["boxes"][matches[chosen]], anchors[number][chosen])
            box_losses.append(nn.functional.smooth_l1_loss(deltas[chosen], wanted, reduction="sum", beta=BETA))
        # An image without objects has no positives.
        sums = torch.stack(class_losses).sum(), torch.stack(box_losses).sum()
        return dict(zip(("classification", "bbox_regression"), (value / max(1, positives) for value in sums), strict=True))


def widen_towers(network: RetinaNet) -> None:
    """Gives the towers first weights that keep the size of values from layer to layer.

    NOTE: the paper's deviation of 0.01 lets values shrink to a third in each layer of 256 channels, to a sixth in one of 64. Then
    a few hundred steps teach four such layers nothing.
    """
    for tower in network.head.classification_head.conv, network.head.regression_head.conv:
        for layer in tower.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def match(matcher: Matcher, boxes: Tensor, anchors: Tensor) -> Tensor:
    """The object of each anchor [A]; -1: background, -2: neither."""
    if not len(boxes):
        return torch.full((len(anchors),), Matcher.BELOW_LOW_THRESHOLD, device=anchors.device)
    return matcher(box_iou(boxes, anchors))
