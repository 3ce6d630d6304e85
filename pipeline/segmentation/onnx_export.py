"""A segmentation network as an ONNX file, for images of one size: other programs can run it without torch.

Its input is `images` [1 x 3 x H x W], normalised as the network's backbone wants it; its output `scores` [1 x K x H x W].
"""

import contextlib
import io
from importlib.util import find_spec
from pathlib import Path

import torch

from pipeline.errors import PipelineError
from pipeline.files.writing import write_file
from pipeline.segmentation.layout import PATCHES
from pipeline.segmentation.network import SegmentationNetwork

PACKAGES = "onnx", "onnxscript"  # what torch's exporter needs
INPUT, OUTPUT = "images", "scores"


def check_packages() -> None:
    """Raises PipelineError, naming them, when packages are missing."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise PipelineError(f"ONNX needs the package {' and '.join(missing)}; pip install -e '.[onnx]'")


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
    proto = program.model_proto
    _forget_sources(proto)
    write_file(path, proto.SerializeToString(deterministic=True))


def _forget_sources(proto) -> None:
    """Takes out what the exporter notes of the program: its files' paths and lines."""
    del proto.metadata_props[:]
    graphs = [proto.graph, *proto.functions]
    for graph in graphs:
        graph.doc_string = ""
        del graph.metadata_props[:]
        values = [*graph.value_info, *getattr(graph, "input", []), *getattr(graph, "output", []), *graph.node,
                  *getattr(graph, "initializer", [])]
        for value in values:
            if not isinstance(value, str):  # the inputs of a function are names
                value.doc_string = ""
                del value.metadata_props[:]
