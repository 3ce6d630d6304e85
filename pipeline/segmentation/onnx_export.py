"""A segmentation network as an ONNX file, for images of one size: other programs can run it without torch.

Its input is `images` [1 x 3 x H x W], normalised as the network's backbone wants it; its output `scores` [1 x K x H x W].
"""

import contextlib
import io
from pathlib import Path

import torch

from pipeline.errors import PipelineError
from pipeline.files.onnx_files import check_packages, write_model
from pipeline.segmentation.layout import PATCHES
from pipeline.segmentation.network import SegmentationNetwork

INPUT, OUTPUT = "images", "scores"


def write_onnx(model: SegmentationNetwork, size: tuple[int, int], path: Path) -> None:
    """Writes `model` for images of `size` (H, W). Equal networks give equal bytes.

    Raises PipelineError when a package is missing, and for patches: their windows are cut by a loop, for which ONNX has no layer.
    """
    check_packages()
    if model.layout.kind == PATCHES:
        raise PipelineError(f"ONNX: {PATCHES} cuts windows in a loop, which is no network; export another method")
    model = model.cpu().float().eval()
    with contextlib.redirect_stdout(io.StringIO()):  # the exporter talks
        program = torch.onnx.export(
            model, (torch.zeros(1, 3, *size),), input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False
        )
    assert program is not None
    write_model(path, program.model_proto)
