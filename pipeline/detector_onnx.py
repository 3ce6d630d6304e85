"""A detector's folder gets an ONNX file and `onnx.json`, with which other programs detect as `pipeline.detector` does.

`onnx.json` names the classes and says to which size an image is resized. It is what examples/detect_onnx.py reads.
Needs no torch before it writes, so that what cannot be exported is refused at once.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from pipeline.detector_folder import part_paths, read_settings
from pipeline.errors import PipelineError
from pipeline.files.onnx_files import OPSET, check_packages
from pipeline.files.writing import write_file
from pipeline.later_detectors.names import ARCHITECTURES, is_later

DESCRIPTION = "onnx.json"
FASTER_RCNN = "faster-rcnn"


def check_exportable(chain: str, settings: Mapping) -> None:
    """Raises PipelineError for a chain without an export, for several views of an image in its `settings`, and when a package is
    missing.
    """
    if chain != FASTER_RCNN and not is_later(chain):
        chains = f"{FASTER_RCNN}, {', '.join(ARCHITECTURES)} or one of torchvision's models"
        raise PipelineError(f"--format onnx: {chain} cannot be exported; give --chain {chains}")
    if settings.get("views"):
        raise PipelineError("--format onnx: an image is looked at once; leave out --test-scales and --test-mirror")
    check_packages()


def write_onnx(folder: Path) -> None:
    """Writes both files into the detector's folder, for arithmetic in float32. Raises as `check_exportable`."""
    from pipeline.detector import build_chain
    from pipeline.networks.compute import prepare

    record = read_settings(folder)
    check_exportable(record["chain"], record["settings"])
    settings = record["settings"] | {"precision": "float32"}
    detector = build_chain(record["chain"], settings, part_paths(folder, record), prepare("cpu", 1))
    description = {"chain": record["chain"], "classes": record["classes"], "opset": OPSET, **_write_networks(detector, folder)}
    write_file(folder / DESCRIPTION, json.dumps(description, indent=1, sort_keys=True) + "\n")


def _write_networks(detector, folder: Path) -> dict:
    from pipeline.faster_rcnn.joint import FasterRCNNDetector

    if isinstance(detector, FasterRCNNDetector):
        from pipeline.faster_rcnn.onnx_export import write_faster_rcnn

        return write_faster_rcnn(detector, folder)
    from pipeline.later_detectors.onnx_export import write_later  # here: torchvision takes two seconds

    return write_later(detector, folder)
