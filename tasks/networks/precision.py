"""Which arithmetic a network is computed in where the user leaves it open."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import cache

from tasks.engine.processes import start_worker


@cache
def has_fast_bfloat16(device: str) -> bool:
    """Whether `device` computes in bfloat16 faster than in float32; of a CPU asked without importing torch.

    GPUs from NVIDIA's Ampere on (compute capability 8) do; older ones imitate it. Processors with AMX do, and AMD's with
    avx512_bf16. Intel's without AMX take 1.4 times as long as in float32 for SqueezeNet.
    """
    if device != "cpu":
        # By another process: stages run in forks of this one, and CUDA works in no fork of a process that has used it.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker) as pool:
            return pool.submit(_gpu_has_bfloat16, device).result()
    try:
        with open("/proc/cpuinfo") as file:
            first = file.read().partition("\n\n")[0].split()
    except OSError:
        return False
    return "amx_bf16" in first or ("AuthenticAMD" in first and "avx512_bf16" in first)


def _gpu_has_bfloat16(device: str) -> bool:
    import torch

    return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
