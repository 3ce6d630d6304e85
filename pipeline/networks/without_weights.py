"""Networks without weights, for their sizes alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode

RANDOM_FILLS = {torch.Tensor.normal_, torch.Tensor.uniform_}


@contextmanager
def without_weights() -> Iterator[None]:
    """Networks made within it are on the device `meta`: their weights have shapes and take neither memory nor time."""
    with torch.device("meta"), _NothingFilled():
        yield


class _NothingFilled(TorchFunctionMode):
    """Random fills do nothing. torch imports its compiler for those of the device `meta`, which takes a process 1.2 seconds."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return args[0] if function in RANDOM_FILLS else function(*args, **(kwargs or {}))
