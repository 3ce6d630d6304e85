"""The weights files that torchvision trained on ImageNet: their names, and fetching them. Needs no torch."""

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import PipelineError

# torchvision's files; the digits after the dash begin the SHA-256 of each.
IMAGENET_FILES = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "vgg16": "vgg16-397923af.pth",
    "squeezenet1_0": "squeezenet1_0-b66bff10.pth",
}
IMAGENET_URL = "https://download.pytorch.org/models/"
TIMEOUT_SECONDS = 30


def imagenet_file(backbone: str) -> str:
    """The name of torchvision's ImageNet weights file. Raises PipelineError for a backbone that has none."""
    if backbone not in IMAGENET_FILES:
        raise PipelineError(f"there are no ImageNet weights for backbone {backbone!r}; use --weights scratch or a file")
    return IMAGENET_FILES[backbone]


def fetch_imagenet(
    backbone: str, folder: Path, url: str = IMAGENET_URL, progress: Callable = lambda blocks, total: blocks
) -> Path:
    """The path of the ImageNet weights in `folder`, downloaded from `url` if they are not there yet.

    The download goes to a `.part` file; it, and a file found in place, is checked against the digest in its name. Raises
    PipelineError, saying which file to put where, when there is no connection, and for a file with another digest.
    """
    name = imagenet_file(backbone)
    target = folder / name
    if target.is_file():
        check_digest(target, name)
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{name}.{os.getpid()}.part"
    try:
        with urllib.request.urlopen(url + name, timeout=TIMEOUT_SECONDS) as response, open(part, "wb") as file:
            total = int(response.headers.get("Content-Length") or 0) >> 20
            for block in progress(iter(lambda: response.read(1 << 20), b""), total):
                file.write(block)
    except (OSError, http.client.HTTPException) as error:
        part.unlink(missing_ok=True)
        raise PipelineError(
            f"the weights of {backbone} are not here and cannot be downloaded ({error}): get {url}{name} on a machine "
            f"with a connection and put it at {target}, or give a file with --weights, or train with --weights scratch"
        ) from error
    try:
        check_digest(part, name)
    except PipelineError:
        part.unlink()
        raise
    part.rename(target)
    return target


def check_digest(path: Path, name: str) -> None:
    """Raises PipelineError unless the SHA-256 of the file `path` begins as the name `name` says (`x-1a2b3c4d.pth`)."""
    expected = name.rsplit("-", 1)[1].split(".")[0]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if not found.startswith(expected):
        raise PipelineError(f"{path}: SHA-256 {found[:16]}..., expected {expected}...; remove it and get {name} again")
