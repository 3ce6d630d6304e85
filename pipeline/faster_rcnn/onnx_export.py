"""Faster R-CNN for ONNX: in torch's operators what its detector does in NumPy.

1. The image is normalised and framed; the trunk makes its map.
2. The region proposal network proposes; of the proposals that pool the same cells the first stays.
3. Each region is pooled, scored and moved.
4. Suppression class by class.

Shape shorthand: H x W pixels of the scaled image; D channels, h x w cells of the map; N anchors, R regions, C classes.
"""

import math
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from pipeline.detection.onnx_export import earlier, write_detector
from pipeline.errors import PipelineError
from pipeline.fast_rcnn.network import FastRCNN
from pipeline.faster_rcnn.joint import FasterRCNNDetector
from pipeline.faster_rcnn.rpn import LARGEST_GROWTH
from pipeline.networks.average_pooling import SAMPLES
from pipeline.networks.variants import ALIGN, AVERAGE

EXAMPLE = 90, 140  # sides of the image that the exporter runs on, at least: a square would let it take one for the other


class Network(nn.Module):
    """From `image` [3 x H x W] in 0..1 and the `factors` [2] of x and y that scaled it: boxes [k x 4], scores [k], labels [k]."""

    def __init__(self, detector: FasterRCNNDetector, model: FastRCNN):
        super().__init__()
        self.model, self.rpn = model, detector.rpn
        self.settings, self.limits, self.view = detector.proposal_settings, detector.detector.limits, model.backbone.view

    def forward(self, image: Tensor, factors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size = torch._shape_as_tensor(image)[[2, 1, 2, 1]]  # as a tensor, which the exporter does not take for constants
        # 1. Frame
        conv_map = self.model.backbone.trunk(self._framed(image)[None])[0]
        # 2. Propose
        boxes = self._proposals(conv_map, factors, size)
        rois = boxes - torch.cat([torch.zeros(2), factors])  # the corners belong to the region
        first = self._distinct(rois)
        boxes, rois = boxes[first], rois[first]
        # 3. Score and move
        scores, deltas = self.model(self._pool(conv_map, rois).flatten(1))
        scores = scores.softmax(dim=1)[:, 1:]
        moved = clip(decode(boxes[:, None], deltas), size)
        # 4. Suppress
        order = torch.argsort(scores, dim=0, descending=True)[: self.limits.max_per_image or None]
        labels = torch.arange(scores.shape[1]).expand_as(order).flatten()
        rows = order.flatten()
        boxes, scores = moved[rows, labels], scores[rows, labels]
        kept = torchvision.ops.batched_nms(boxes, scores, labels, self.limits.nms_threshold)
        return boxes[kept], scores[kept], labels[kept] + 1

    def _framed(self, image: Tensor) -> Tensor:
        view = self.view
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (view.norm.mean, view.norm.std))
        after: list = []  # tensors, or the exporter would take them for constants
        for side in (image.shape[2], image.shape[1]):
            if view.whole_cells:
                after.append(-(view.border + side) % view.stride)
            else:
                after.append(torch.clamp(torch.as_tensor(view.stride - view.border - side), min=view.border))
        pads = [view.border, after[0], view.border, after[1]]
        return nn.functional.pad((image * 255 - mean) / deviation, pads)

    def _proposals(self, conv_map: Tensor, factors: Tensor, size: Tensor) -> Tensor:
        """Proposals in the scaled image, best first: [R x 4]."""
        settings = self.settings
        scores, deltas = self.rpn(conv_map)
        y, x = (torch.arange(count) * self.rpn.stride for count in conv_map.shape[1:])
        cells = torch.stack([*torch.meshgrid(x, y, indexing="xy")] * 2, dim=-1).reshape(-1, 1, 4)
        anchors = (cells + torch.from_numpy(self.rpn.base_anchors).float()).reshape(-1, 4)
        deltas = torch.cat([deltas[:, :2], deltas[:, 2:].clamp(max=math.log(LARGEST_GROWTH))], dim=1)
        boxes = clip(decode(anchors, deltas), size)
        large = (boxes[:, 2:] - boxes[:, :2] >= settings.min_side * factors).all(dim=1)
        boxes, scores = boxes[large], scores[large]
        best = torch.argsort(scores, descending=True)[: settings.before_nms or None]
        kept = torchvision.ops.nms(boxes[best], scores[best], settings.nms_threshold)[: settings.after_nms]
        return boxes[best[kept]]

    def _distinct(self, rois: Tensor) -> Tensor:
        """Which of the regions [R x 4] pool other cells than all before them: bool [R]."""
        if self.model.backbone.pooling != ALIGN:
            rois = self._cells(rois)
        equal = (rois[:, None] == rois).all(dim=2)
        return ~(equal & earlier(rois)).any(dim=1)

    def _cells(self, rois: Tensor) -> Tensor:
        """The cells of corners, rounded half away from zero as in the release; corners are at least -1."""
        places = rois.double() / self.view.stride
        return torch.sign(places) * torch.floor(places.abs() + 0.5)

    def _pool(self, conv_map: Tensor, rois: Tensor) -> Tensor:
        """`pool5` [R x D x n x n], by the operators that ONNX has."""
        backbone, stride, grid = self.model.backbone, self.view.stride, self.model.backbone.grid
        numbered = nn.functional.pad(rois, (1, 0))  # of the first image
        if backbone.pooling == ALIGN:
            edges = torch.tensor([-0.5, -0.5, 0.5, 0.5]) - self.view.centre + stride / 2  # the operator moves by half a cell
            numbered = nn.functional.pad(rois + edges, (1, 0))
            return torchvision.ops.roi_align(conv_map[None], numbered, grid, 1 / stride, SAMPLES, aligned=True)
        if backbone.pooling != AVERAGE:
            return torchvision.ops.roi_pool(conv_map[None], numbered, grid, 1 / stride)
        cells = self._cells(rois).float()
        columns, rows = (_bin_weights(cells[:, side::2], grid, conv_map.shape[2 - side]) for side in (0, 1))
        return rows[:, None] @ conv_map @ columns.transpose(1, 2)[:, None]


def decode(boxes: Tensor, deltas: Tensor) -> Tensor:
    """`pipeline.boxes.decode` of boxes [... x 4]."""
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + 0.5 * size + deltas[..., :2] * size
    half = 0.5 * torch.exp(deltas[..., 2:]) * size
    return torch.cat([centre - half, centre + half], dim=-1)


def clip(boxes: Tensor, size: Tensor) -> Tensor:
    """The boxes [... x 4] within `size` (width, height, width, height)."""
    return torch.minimum(boxes.clamp(min=0), size.to(boxes.dtype))


def _bin_weights(ends: Tensor, bins: int, cells: int) -> Tensor:
    """The weights of the cells along a side in the averages of the bins of regions between `ends` [R x 2]: [R x bins x cells]."""
    steps = torch.arange(bins + 1) * ((ends[:, 1:] - ends[:, :1] + 1).clamp(min=1) / bins)
    first, end = torch.floor(steps[:, :-1]) + ends[:, :1], torch.ceil(steps[:, 1:]) + ends[:, :1]
    places = torch.arange(cells)
    inside = ((places >= first[..., None]) & (places < end[..., None])).float()
    return inside / inside.sum(dim=2, keepdim=True).clamp(min=1)


def write_faster_rcnn(detector: FasterRCNNDetector, folder: Path) -> dict:
    """Writes the file into `folder`; returns what a program needs besides it, as JSON."""
    model, views = detector.detector.model, detector.detector.views
    if not isinstance(model, FastRCNN):
        raise PipelineError("ONNX: R-FCN pools by position, for which there is no export; export another chain")
    limits, names = detector.detector.limits, ("boxes", "scores", "labels")
    write_detector(
        folder, Network(detector, model), limits, sides=EXAMPLE, fixed=False, names=names, limits_classes=False,
    )
    return {
        "fixed_size": None, "shorter_side": views.scales[0], "longest_side": views.longest, "narrowest": None, "rounds": True,
    }
