"""Weights of a backbone: from a given file, from torchvision's download, and as safetensors in the cache."""

import hashlib
import urllib.request
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.networks.backbones import Backbone

# torchvision's files; the digits after the dash begin the SHA-256 of each.
IMAGENET_FILES = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "vgg16": "vgg16-397923af.pth",
    "squeezenet1_0": "squeezenet1_0-b66bff10.pth",
}
IMAGENET_URL = "https://download.pytorch.org/models/"
TIMEOUT_SECONDS = 30

# torchvision's names of the fully connected layers, and of the classifier that R-CNN replaces.
FC_NAMES = {"alexnet": {"classifier.1": "fc6", "classifier.4": "fc7"}, "vgg16": {"classifier.0": "fc6", "classifier.3": "fc7"}}
REPLACED = {"alexnet": "classifier.6", "vgg16": "classifier.6", "squeezenet1_0": "classifier.1"}


def imagenet_file(backbone: str) -> str:
    """The name of torchvision's ImageNet weights file. Raises PipelineError for a backbone that has none."""
    if backbone not in IMAGENET_FILES:
        raise PipelineError(f"there are no ImageNet weights for backbone {backbone!r}; use --weights scratch or a file")
    return IMAGENET_FILES[backbone]


def fetch_imagenet(
    backbone: str, folder: Path, url: str = IMAGENET_URL, progress: Callable = lambda blocks, total: blocks
) -> Path:
    """The path of the ImageNet weights in `folder`, downloaded from `url` if they are not there yet.

    The download goes to a `.part` file and is checked against the digest in its name. Raises PipelineError, saying which file to
    put where, when there is no connection.
    """
    name = imagenet_file(backbone)
    target = folder / name
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    try:
        with urllib.request.urlopen(url + name, timeout=TIMEOUT_SECONDS) as response, open(part, "wb") as file:
            total = int(response.headers.get("Content-Length") or 0) >> 20
            for block in progress(iter(lambda: response.read(1 << 20), b""), total):
                file.write(block)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise PipelineError(
            f"the weights of {backbone} are not here and cannot be downloaded ({error}): get {url}{name} on a machine "
            f"with a connection and put it at {target}, or give a file with --weights, or train with --weights scratch"
        ) from error
    check_digest(part, name)
    part.rename(target)
    return target


def check_digest(path: Path, name: str) -> None:
    """Removes `path` and raises PipelineError unless its SHA-256 begins as the file name `name` says (`x-1a2b3c4d.pth`)."""
    expected = name.rsplit("-", 1)[1].split(".")[0]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if not found.startswith(expected):
        path.unlink()
        raise PipelineError(f"{name}: downloaded file has SHA-256 {found[:16]}..., expected {expected}...; try again")


def load_weights(backbone: Backbone, path: Path) -> None:
    """Loads a state dict in torchvision's names into `backbone`; the classifier in it, if any, is left out.

    Raises PipelineError, naming the first tensors that are missing, unknown or of another shape.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise PipelineError(f"{path}: not a file of weights that torch can read without running code ({error})") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise PipelineError(f"{path}: expected a state dict (names to tensors), found {type(loaded).__name__}")
    load_tensors(backbone, _from_torchvision(backbone.name, loaded), path)


def _from_torchvision(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in tensors.items():
        module, _, kind = key.removeprefix("module.").rpartition(".")
        if module == REPLACED.get(name):
            continue
        if module.startswith("features."):
            module = "trunk." + module.removeprefix("features.")
        module = f"fc.{FC_NAMES[name][module]}" if module in FC_NAMES.get(name, {}) else module
        renamed[f"{module}.{kind}"] = value
    return renamed


def load_tensors(module: nn.Module, tensors: dict[str, Tensor], source: Path | str) -> None:
    """Copies `tensors` into `module`. Raises PipelineError unless names and shapes agree."""
    expected = module.state_dict()
    wrong = [f"{key} is missing" for key in expected if key not in tensors]
    wrong += [f"{key} is unknown" for key in tensors if key not in expected]
    wrong += [
        f"{key} has shape {tuple(tensors[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items() if key in tensors and tensors[key].shape != value.shape
    ]
    if wrong:
        name = getattr(module, "name", "this network")
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise PipelineError(f"{source}: not the weights of {name}: {'; '.join(wrong[:3])}{more}")
    module.load_state_dict(tensors)


def save_tensors(module: nn.Module, path: Path) -> None:
    """Writes the module's tensors as safetensors in float32, the same bytes for the same values."""
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in module.state_dict().items()}
    save_file(dict(sorted(tensors.items())), path)
