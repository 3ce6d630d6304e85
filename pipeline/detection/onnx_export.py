"""What the ONNX files of all detectors have in common: one file, from a resized image to its detections, best first.

Resizing stays outside, because its rounding of sides changes in the exporter.

Shape shorthand: H x W pixels of the resized image, k detections, m x m cells of a mask.
"""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.detection.candidates import Limits
from pipeline.files.onnx_files import OPSET, write_model

NETWORK = "network.onnx"
INPUTS = ("image", "factors")


class BestFirst(nn.Module):
    """`image` [3 x H x W] in 0..1 and `factors` -> boxes [k x 4], scores [k], labels [k] from 1, and further values, best first.

    `network` finds boxes in the resized image; `factors` [2] of x and y took the photograph to it. Within the limits
    `max_per_class` and `max_detections`; 0: none. Label 0, the background, is left out.
    """

    def __init__(self, network: nn.Module, max_per_class: int, max_detections: int):
        super().__init__()
        self.network, self.max_per_class, self.max_detections = network, max_per_class, max_detections

    def forward(self, image: Tensor, factors: Tensor) -> tuple[Tensor, ...]:
        boxes, scores, labels, *others = self.network(image, factors)
        values = [boxes / factors.repeat(2), scores, labels, *others]
        order = torch.argsort(scores, descending=True)
        values = [value[order] for value in values]
        keep = values[2] > 0
        if self.max_per_class:
            same = (values[2][:, None] == values[2]) & earlier(values[2])
            keep &= same.sum(dim=1) < self.max_per_class
        values = [value[keep] for value in values]
        return tuple(value[: self.max_detections] for value in values) if self.max_detections else tuple(values)


def earlier(values: Tensor) -> Tensor:
    """Which rows come before a row: bool [k x k]."""
    places = torch.arange(values.shape[0])
    return places < places[:, None]


def write_detector(
    folder: Path, network: nn.Module, limits: Limits, *, sides: tuple[int, int], fixed: bool, names: tuple[str, ...],
    limits_classes: bool,
) -> None:
    """Writes `network`, as `BestFirst` takes it, into `folder`. `names` are those of its outputs.

    The exporter runs on an image of `sides`; unless it is `fixed`, images may have any. `limits_classes`: `max_per_image` counts
    detections of a class after suppression.
    """
    import onnx

    model = BestFirst(network, limits.max_per_image if limits_classes else 0, limits.max_detections)
    dynamic: dict[str, Mapping[int, str]] = {name: {0: "detections"} for name in names}
    if not fixed:
        dynamic["image"] = {1: "height", 2: "width"}
    example = torch.rand(3, *sides, generator=torch.Generator().manual_seed(0)), torch.ones(2)
    content = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of what the exporter takes for constants; the tests show that it may
        # NOTE: torch's old exporter, which follows one run: the new one refuses loops over detections.
        torch.onnx.export(
            model.float().eval(), example, content,  # type: ignore[arg-type]  # torch's old exporter takes it
            input_names=list(INPUTS), output_names=list(names), dynamic_axes=dynamic, opset_version=OPSET, dynamo=False,
        )
    write_model(folder / NETWORK, onnx.load_from_string(content.getvalue()))
