"""Mask R-CNN (He et al., ICCV 2017): Faster R-CNN on a feature pyramid, with a mask of 28 x 28 cells for each region.

The mask of a region is trained for its true class alone, cell by cell (torchvision's `maskrcnn_loss`). At test time masks are
predicted for the detections after suppression, each for its class.

NOTE: on our trunks the heads have `channels` in place of 256, and the fully connected layers four times as many.
"""

from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from pipeline.later_detectors.retinanet import RATIOS, SIDES, ExactAnchors

LEVELS = ["0", "1", "2", "3"]  # P2 to P5, from which regions are pooled
POOLED, POOLED_FOR_MASKS = 7, 14


def mask_rcnn(trunk: nn.Module, num_outputs: int, channels: int, regions: int, **transform) -> MaskRCNN:
    """Mask R-CNN on a pyramid of strides 4 to 64. A step trains on `regions` of an image, a quarter of them objects."""
    heads = {
        "box_head": TwoMLPHead(channels * POOLED**2, 4 * channels), "box_predictor": FastRCNNPredictor(4 * channels, num_outputs),
        "mask_head": MaskRCNNHeads(channels, (channels,) * 4, 1),
        "mask_predictor": MaskRCNNPredictor(channels, channels, num_outputs),
    }
    pools = {
        "box_roi_pool": MultiScaleRoIAlign(LEVELS, POOLED, 2), "mask_roi_pool": MultiScaleRoIAlign(LEVELS, POOLED_FOR_MASKS, 2),
    }
    anchors = ExactAnchors(tuple((side,) for side in SIDES), (RATIOS,) * len(SIDES))
    return MaskRCNN(trunk, rpn_anchor_generator=anchors, box_batch_size_per_image=regions, **heads, **pools, **transform)
