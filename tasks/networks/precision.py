"""Which arithmetic a network uses if the user does not choose it."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import cache

from tasks.engine.processes import start_worker


@cache
def has_fast_bfloat16(device: str) -> bool:
    """Whether `device` is faster in bfloat16 than in float32. For a CPU, torch is not imported.

    It is on NVIDIA's GPUs from Ampere on (compute capability 8); older ones emulate bfloat16. It is on CPUs with AMX, and on
    AMD's CPUs with avx512_bf16. On Intel's CPUs without AMX, SqueezeNet takes 1.4 times as long as in float32.
    """
    if device != "cpu":
        # Another process asks the GPU: stages run in forks of this process, and CUDA does not work in a fork of its user.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker) as pool:
            return pool.submit(_gpu_has_bfloat16, device).result()
    try:
        with open("/proc/cpuinfo") as file:
            words = file.read().partition("\n\n")[0].split()  # of the first core
    except OSError:
        return False
    return "amx_bf16" in words or ("AuthenticAMD" in words and "avx512_bf16" in words)


def _gpu_has_bfloat16(device: str) -> bool:
    import torch

    return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
