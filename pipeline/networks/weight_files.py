"""The weights files that torchvision trained on ImageNet: their names, and fetching them. Needs no torch."""

from collections.abc import Callable
from pathlib import Path

from pipeline.downloads import Checksum, fetch
from pipeline.errors import PipelineError

# torchvision's files; the digits after the dash begin the SHA-256 of each.
IMAGENET_FILES = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "vgg16": "vgg16-397923af.pth",
    "squeezenet1_0": "squeezenet1_0-b66bff10.pth",
}
IMAGENET_URL = "https://download.pytorch.org/models/"


def imagenet_file(backbone: str) -> str:
    """The name of torchvision's ImageNet weights file. Raises PipelineError for a backbone that has none."""
    if backbone not in IMAGENET_FILES:
        raise PipelineError(f"there are no ImageNet weights for backbone {backbone!r}; use --weights scratch or a file")
    return IMAGENET_FILES[backbone]


def fetch_imagenet(
    backbone: str, folder: Path, url: str = IMAGENET_URL, progress: Callable = lambda blocks, total: blocks
) -> Path:
    """The path of the ImageNet weights in `folder`, fetched from `url` if they are not there yet: see `pipeline.downloads`."""
    name = imagenet_file(backbone)
    checksum = Checksum("sha256", name.rsplit("-", 1)[1].split(".")[0])
    otherwise = ", or give a file with --weights, or train with --weights scratch"
    return fetch(f"the weights of {backbone} are", folder / name, [url + name], checksum, otherwise=otherwise, progress=progress)
