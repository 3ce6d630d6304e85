"""Faster R-CNN as two ONNX files. What is between and around them is short enough for NumPy: see examples/detect_onnx.py.

1. `maps.onnx`: the trunk and the region proposal network, from an image of any size.
2. `regions.onnx`: the layers of regions and both output layers, from `pool5` of any number of regions.

Shape shorthand: H x W pixels of the framed image; D channels, h x w cells of the map, N anchors; R regions, C classes.
"""

import contextlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from pipeline.errors import PipelineError
from pipeline.fast_rcnn.network import FastRCNN
from pipeline.faster_rcnn.joint import FasterRCNNDetector
from pipeline.faster_rcnn.rpn import LARGEST_GROWTH, RPN
from pipeline.files.onnx_files import OPSET, write_model

MAPS, REGIONS = "maps.onnx", "regions.onnx"
EXAMPLE = 10, 15  # cells of the map of the image that the exporter runs on


class Maps(nn.Module):
    """`images` [1 x 3 x H x W], normalised, -> `map` [D x h x w], `scores` [N] and `deltas` [N x 4] of the anchors."""

    def __init__(self, trunk: nn.Module, rpn: RPN):
        super().__init__()
        self.trunk, self.rpn = trunk, rpn

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        conv_map = self.trunk(images)[0]
        return conv_map, *self.rpn(conv_map)


class Regions(nn.Module):
    """`pool5` [R x D grid grid] -> `scores` [R x C], without the background, and `deltas` [R x C x 4]."""

    def __init__(self, model: FastRCNN):
        super().__init__()
        self.model = model

    def forward(self, pool5: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = self.model(pool5)
        return scores.softmax(dim=1)[:, 1:], deltas


def write_faster_rcnn(detector: FasterRCNNDetector, folder: Path) -> dict:
    """Writes both files into `folder`; returns what a program needs besides them, as JSON."""
    model, rpn, proposals = detector.detector.model, detector.rpn, detector.proposal_settings
    if not isinstance(model, FastRCNN):
        raise PipelineError("ONNX: R-FCN pools by position, for which there is no export; export another chain")
    backbone = model.backbone
    view, views = backbone.view, detector.detector.views
    # With whole cells the sides are multiples of the stride. Only if the exporter knows that, it can tell the padding.
    sides = [view.stride * Dim(name, min=1) if view.whole_cells else Dim.DYNAMIC for name in ("rows", "columns")]
    image = torch.zeros(1, 3, *(view.framed(cells * view.stride) for cells in EXAMPLE))
    _write(folder / MAPS, Maps(backbone.trunk, rpn), {"images": image}, dict(enumerate(sides, 2)), ("map", "scores", "deltas"))
    pool5 = torch.zeros(5, backbone.sizes["pool5"])
    _write(folder / REGIONS, Regions(model), {"pool5": pool5}, {0: Dim("regions", min=1)}, ("scores", "deltas"))
    return {
        "shorter_side": views.scales[0], "longest_side": views.longest, "mean": list(view.norm.mean),
        "std": list(view.norm.std), "border": view.border, "stride": view.stride, "whole_cells": view.whole_cells,
        "centre": view.centre, "pooling": backbone.pooling, "grid": backbone.grid, "anchors": rpn.base_anchors.tolist(),
        "largest_growth": LARGEST_GROWTH, "before_nms": proposals.before_nms, "after_nms": proposals.after_nms,
        "proposal_nms_threshold": proposals.nms_threshold, "min_side": proposals.min_side, **detector.detector.limits._asdict(),
    }


def _write(path: Path, model: nn.Module, inputs: dict[str, Tensor], dynamic: dict, outputs: tuple[str, ...]) -> None:
    """`inputs` are an example of the input, whose sides `dynamic` may have any size."""
    with contextlib.redirect_stdout(io.StringIO()):  # the exporter talks
        program = torch.onnx.export(
            model.eval(), tuple(inputs.values()), input_names=list(inputs), output_names=outputs, dynamic_shapes=(dynamic,),
            opset_version=OPSET, dynamo=True, verbose=False,
        )
    assert program is not None
    write_model(path, program.model_proto)
