"""Where and how a network computes: device, precision, threads, determinism."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError

# malloc.h of glibc
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8

Network = TypeVar("Network", bound=nn.Module)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def prepare(device: str, threads: int) -> torch.device:
    """The torch device `device`, with `threads` threads on the CPU, and deterministic kernels where they exist.

    Raises PipelineError for an unknown device.
    """
    try:
        torch_device = torch.device(device)
    except RuntimeError as error:
        raise PipelineError(f"--device {device}: no such device; use cpu or cuda") from error
    if torch_device.type == "cuda" and not torch.cuda.is_available():
        raise PipelineError(f"--device {device}: torch sees no CUDA device here; use --device cpu")
    torch.set_num_threads(threads)
    keep_freed_memory()
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32
    # A warning instead of an error where CUDA has no deterministic kernel (pooling backwards).
    # NOTE: `use_deterministic_algorithms` does the same and imports torch's compiler for it, which takes three seconds.
    torch.set_deterministic_debug_mode("warn" if torch_device.type == "cuda" else "default")
    return torch_device


@cache
def keep_freed_memory() -> None:
    """Makes malloc keep freed memory (glibc).

    A batch's activations are hundreds of megabytes, which malloc would otherwise return to the system and
    request again in every step; clearing fresh pages then takes the kernel longer than the convolutions (SqueezeNet in bfloat16
    on two cores: 8.8 ms per crop, 3.5 without).
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            # Older glibc takes 32 MB at most.
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 30) or libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)
            libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
            libc.mallopt(M_ARENA_MAX, 1)


def for_inference(module: Network, device: torch.device, precision: str) -> Network:
    """`module` ready for inference: evaluation mode, weights in `precision`, channels last."""
    return module.eval().to(device, DTYPES[precision]).to(memory_format=torch.channels_last)


@contextlib.contextmanager
def mixed_precision(device: torch.device, precision: str) -> Iterator[None]:
    """Runs the forward pass in `precision` while the weights stay float32."""
    with torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32"):
        yield


def apply_in_float32(layer: nn.Conv2d | nn.Linear, values: Tensor) -> Tensor:
    """`layer` (an unpadded convolution, or a linear one) applied in float32 where `values` or the weights are of less precision.

    For scores, because they are compared: bfloat16 has only 128 values between 0.5 and 1, so many of thousands of scores would
    be equal.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    weight, bias = layer.weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype)
    with torch.autocast(values.device.type, enabled=False):
        apply = nn.functional.linear if isinstance(layer, nn.Linear) else nn.functional.conv2d
        return apply(values.to(dtype), weight, bias)
