"""Weights of a detector from a file: torchvision's of the whole detector, or of its trunk alone.

A detector that was trained on COCO has 91 outputs. For each of our classes that COCO has, the rows of its class are taken; other
classes start from new weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models._meta import _COCO_CATEGORIES as COCO_CATEGORIES

from pipeline.errors import PipelineError
from pipeline.later_detectors.network import Design, LaterDetector
from pipeline.networks.weights import check_tensors, read_state_dict
from pipeline.networks.without_weights import without_weights

# VOC's names of what COCO calls otherwise.
SYNONYMS = {
    "aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle", "pottedplant": "potted plant",
    "sofa": "couch", "tvmonitor": "tv",
}
BOX_LAYER = "bbox_pred"  # has four rows for each class
VGG_SPLIT = 23  # modules of torchvision's VGG-16 before conv4's pooling, where SSD's trunk is divided
COUNTS = "num_batches_tracked"  # of batch normalisation that was not frozen


def load_detector_file(detector: LaterDetector, path: Path, classes: Sequence[str]) -> list[str]:
    """Loads the state dict in `path` into `detector`. Returns those of `classes` whose weights are in the file.

    The file may hold the whole detector, trained on COCO or on as many classes as ours, or its trunk. Raises PipelineError,
    naming the first tensors that do not fit.
    """
    tensors = {name: value for name, value in read_state_dict(path).items() if not name.endswith(COUNTS)}
    network = detector.network
    expected = {name: value for name, value in network.state_dict().items() if not name.endswith(COUNTS)}
    trunk = _trunk_names(network, tensors)
    if trunk:
        _check(trunk, {name: expected[name] for name in trunk}, path, detector.design)
        network.load_state_dict(trunk, strict=False)
        return []
    rows, known = _rows_of(expected, tensors, classes, detector.design)
    fitted = {name: _fit(name, value, expected.get(name), rows, known) for name, value in tensors.items()}
    _check(fitted, expected, path, detector.design)
    network.load_state_dict(fitted, strict=False)
    return [name for name, is_known in zip(classes, known[1:], strict=True) if is_known]


def _trunk_names(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a classifier's file under the names of the detector's trunk; empty if the file is of a detector."""
    if any(name.startswith("backbone.") for name in tensors):
        return {}
    if hasattr(network.backbone, "body"):
        named = {f"backbone.body.{name}": value for name, value in tensors.items()}
        return {name: value for name, value in named.items() if name in network.state_dict()}
    renamed = {}
    for name, value in tensors.items():
        if name.startswith("features."):
            number, kind = name.split(".")[1:]
            place = f"features.{number}" if int(number) < VGG_SPLIT else f"extra.0.{int(number) - VGG_SPLIT}"
            renamed[f"backbone.{place}.{kind}"] = value
    return renamed


def _rows_of(expected: Mapping, tensors: Mapping, classes: Sequence[str], design: Design) -> tuple[list[int], list[bool]]:
    """For each output of ours, background first, the output in the file, and whether the file has it."""
    same = list(range(len(classes) + 1)), [True] * (len(classes) + 1)
    if all(tensors[name].shape == value.shape for name, value in expected.items() if name in tensors):
        return same
    with without_weights():
        of_coco = LaterDetector(design, len(COCO_CATEGORIES)).network.state_dict()
    if any(name not in of_coco or value.shape != of_coco[name].shape for name, value in tensors.items()):
        return same  # neither ours nor COCO's: the check afterwards tells what does not fit
    names = [SYNONYMS.get(name, name) for name in classes]
    rows = [0, *(COCO_CATEGORIES.index(name) if name in COCO_CATEGORIES else 0 for name in names)]
    return rows, [True, *(name in COCO_CATEGORIES for name in names)]


def _fit(name: str, value: Tensor, own: Tensor | None, rows: list[int], known: list[bool]) -> Tensor:
    """`value` with the rows of our classes in place of COCO's; those of unknown classes stay as they are in `own`."""
    total = len(COCO_CATEGORIES)
    if own is None or own.shape == value.shape or value.shape[0] % total:
        return value
    inner = 4 if BOX_LAYER in name else 1
    outer = value.shape[0] // (total * inner)  # default boxes or anchors come before classes
    if own.shape[0] != outer * len(rows) * inner:
        return value
    taken = value.unflatten(0, (outer, total, inner))[:, rows]
    kept = own.unflatten(0, (outer, len(rows), inner))
    is_known = torch.tensor(known).reshape(1, -1, *[1] * (taken.ndim - 2))
    return torch.where(is_known, taken, kept).flatten(0, 2)


def _check(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, design: Design) -> None:
    shapes = {name: value.shape for name, value in expected.items()}
    check_tensors(dict(tensors), shapes, path, design.chain)


def check_loaded(path: Path, loaded: Sequence[str], classes: Sequence[str]) -> None:
    """Raises PipelineError unless all of `classes` are among those `loaded`: for a detector that is not trained any more."""
    if missing := [name for name in classes if name not in loaded]:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise PipelineError(
            f"{path}: has no weights for {len(missing)} of {len(classes)} classes ({names}); train with --detector-iterations, "
            "or name COCO's classes with --classes"
        )
