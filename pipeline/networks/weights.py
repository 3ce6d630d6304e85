"""Weights of a backbone: from a file in the names that its publisher gave them, and as safetensors in the cache."""

import re
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.files.reading import check_regular
from pipeline.files.writing import write_tensors
from pipeline.networks import efficientnet, mobilenet, resnet
from pipeline.networks.backbones import Backbone
from pipeline.networks.convolutions import NORM_PARTS, scale_and_offset
from pipeline.networks.variants import RESNETS
from pipeline.text import flat, printable, shown

ADVISING = 300  # characters from which on torch's error is more advice than fault
# torchvision's names of the fully connected layers, and of the classifier that R-CNN replaces.
FC_NAMES = {"alexnet": {"classifier.1": "fc6", "classifier.4": "fc7"}, "vgg16": {"classifier.0": "fc6", "classifier.3": "fc7"}}
REPLACED = {"alexnet": "classifier.6", "vgg16": "classifier.6", "squeezenet1_0": "classifier.1"}
# Families whose batch normalisation becomes a scale and an offset.
NORMALISED = {**dict.fromkeys(RESNETS, resnet), "mobilenet_v3_large": mobilenet}


def load_weights(backbone: Backbone, path: Path) -> None:
    """Loads a state dict in its publisher's names into `backbone`; the classifier in it, if any, is left out.

    Raises PipelineError, naming the first tensors that are missing, unknown or of another shape.
    """
    loaded = read_state_dict(path, backbone)
    renamed = _from_torchvision
    if backbone.base == "efficientnet_lite0":
        renamed = _from_efficientnet
    elif backbone.base in NORMALISED:
        renamed = _from_normalised
    load_tensors(backbone, renamed(backbone, loaded, path), path)


def read_state_dict(path: Path, module: nn.Module | None = None) -> dict[str, Tensor]:
    """The tensors in the state dict `path`. They have values, unless those of `module` have none.

    Raises PipelineError for a file of anything else.
    """
    check_regular(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch asks for reports of pickles by other programs
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        fault = f"not a file of weights that torch can read without running code ({_told(error)})"
        raise PipelineError(f"{path}: {fault}; give a state dict, as torch.save(model.state_dict(), FILE) writes it") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
        raise PipelineError(f"{path}: expected a state dict (names to tensors), found {type(loaded).__name__}")
    has_values = module is None or not next(module.parameters()).is_meta
    if odd := [name for name, value in loaded.items() if not _is_dense(value) or (has_values and value.is_meta)]:
        raise PipelineError(f"{path}: {shown(odd[0])} is no dense tensor of real numbers; give a state dict of such tensors")
    return loaded


def _told(error: Exception) -> str:
    """What torch says of its error, without its advice on how to run the file's code."""
    text = flat(error) if len(str(error)) < ADVISING else str(error)
    if name := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it holds {printable(name[1])}, which is code"
    advises = len(text) >= ADVISING or re.search(r"weights_only|safe_globals|trust|pytorch\.org", text, re.IGNORECASE)
    return f"{type(error).__name__}: a pickle of something else than tensors" if advises else text


def _is_dense(value: Tensor) -> bool:
    return value.layout is torch.strided and not (value.is_quantized or value.is_complex())


def _from_torchvision(backbone: Backbone, tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    name, renamed = backbone.base, {}
    for key, value in tensors.items():
        module, _, kind = key.removeprefix("module.").rpartition(".")
        if module == REPLACED.get(name):
            continue
        if module.startswith("features."):
            module = "trunk." + module.removeprefix("features.")
        module = f"fc.{FC_NAMES[name][module]}" if module in FC_NAMES.get(name, {}) else module
        renamed[f"{module}.{kind}" if module else kind] = value
    return renamed


def _from_efficientnet(backbone: Backbone, tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Faults are told in the file's own names, of which several make one of ours."""
    named = {name.removeprefix("module."): value for name, value in tensors.items()}
    given = {name: value for name, value in named.items() if not name.startswith("_fc.") and "num_batches" not in name}
    check_tensors(given, efficientnet.file_shapes(backbone.state_dict()), path, backbone.name)
    return efficientnet.from_file(given)


def _from_normalised(backbone: Backbone, tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """torchvision's files of networks with batch normalisation. Faults are told in the file's own names."""
    family = NORMALISED[backbone.base]
    named = {name.removeprefix("module."): value for name, value in tensors.items()}
    given = {
        name: value for name, value in named.items()
        if not name.startswith(family.CLASSIFIER) and not name.endswith("num_batches_tracked")
    }
    names = {ours: _file_name(ours, family.FILE_NAMES) for ours in backbone.state_dict()}
    shapes: dict[str, torch.Size] = {}
    for ours, value in backbone.state_dict().items():
        layer, _, kind = names[ours].rpartition(".")
        if kind == "scale":
            shapes |= {f"{_norm_after(layer)}.{part}": value.shape for part in NORM_PARTS}
        elif kind != "offset":
            shapes[names[ours]] = value.shape
    check_tensors(given, shapes, path, backbone.name)
    loaded = {}
    for ours, name in names.items():
        layer, _, kind = name.rpartition(".")
        if kind in ("scale", "offset"):
            scale, offset = scale_and_offset(given, _norm_after(layer), family.EPSILON)
            loaded[ours] = (scale if kind == "scale" else offset).float()
        else:
            loaded[ours] = given[name]
    return loaded


def _file_name(ours: str, beginnings: dict[str, str]) -> str:
    """The name in a file of torchvision's, given which beginning of a name is which there."""
    for beginning, theirs in beginnings.items():
        if ours.startswith(f"{beginning}."):
            return theirs + ours.removeprefix(beginning)
    return ours


def _norm_after(layer: str) -> str:
    """The name of the batch normalisation after a convolution: `conv2` and `bn2` in a block, 0 and 1 in a sequence."""
    block, _, last = layer.rpartition(".")
    norm = last.replace("conv", "bn") if last.startswith("conv") else str(int(last) + 1)
    return f"{block}.{norm}" if block else norm


def load_tensors(module: nn.Module, tensors: dict[str, Tensor], source: Path | str) -> None:
    """Copies `tensors` into `module`. Raises PipelineError unless names and shapes agree."""
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    check_tensors(tensors, shapes, source, getattr(module, "name", "this network"))
    module.load_state_dict(tensors)


def check_tensors(tensors: dict[str, Tensor], shapes: dict[str, torch.Size], source: Path | str, network: str) -> None:
    """Raises PipelineError, naming the first three faults, unless `tensors` have these names and `shapes`."""
    wrong = [f"{key} is missing" for key in shapes if key not in tensors]
    wrong += [f"{key} is unknown" for key in tensors if key not in shapes]
    wrong += [
        f"{key} has shape {tuple(tensors[key].shape)}, expected {tuple(shape)}"
        for key, shape in shapes.items() if key in tensors and tensors[key].shape != shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise PipelineError(f"{source}: not the weights of {network}: {'; '.join(wrong[:3])}{more}")


def save_tensors(module: nn.Module, path: Path) -> None:
    """Writes the module's tensors as safetensors in float32, the same bytes for the same values."""
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in module.state_dict().items()}
    write_tensors(path, dict(sorted(tensors.items())))
