"""ONNX files: which packages they need, and how they are written. Needs no torch, so that a missing package shows at once."""

from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files.writing import write_file

PACKAGES = "onnx", "onnxscript"  # what torch's exporter needs
OPSET = 18  # of the files of detectors: the first one with all that both of torch's exporters write


def check_packages() -> None:
    """Raises PipelineError, naming them, when packages are missing."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise PipelineError(f"ONNX needs the package {' and '.join(missing)}; pip install -e '.[onnx]'")


def write_model(path: Path, proto) -> None:
    """Writes the new file `path` with `proto`, an onnx.ModelProto. Equal networks give equal bytes."""
    del proto.metadata_props[:]
    for graph in (proto.graph, *proto.functions):
        _forget_sources(graph)
    write_file(path, proto.SerializeToString(deterministic=True))


def _forget_sources(graph) -> None:
    """Takes out what the exporters note of the program: its files' paths and lines."""
    graph.doc_string = ""
    del graph.metadata_props[:]
    values = [*graph.value_info, *getattr(graph, "input", []), *getattr(graph, "output", []), *graph.node,
              *getattr(graph, "initializer", [])]
    for value in values:
        if not isinstance(value, str):  # the inputs of a function are names
            value.doc_string = ""
            del value.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:  # the branches of a condition are graphs
            if attribute.HasField("g"):
                _forget_sources(attribute.g)
