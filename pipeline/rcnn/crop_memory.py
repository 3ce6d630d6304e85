"""Memory for crops, and the tensors that networks see of it.

Shape shorthand: N crops, S side of a crop.
"""

import numpy as np
import torch


def empty_crops(count: int, side: int, device: torch.device) -> np.ndarray:
    """Memory for crops, float32 [N x S x S x 3]; page-locked if they go to a GPU, which makes that copy several times as fast."""
    return torch.empty((count, side, side, 3), dtype=torch.float32, pin_memory=device.type == "cuda").numpy()


def crops_to_tensor(crops: np.ndarray, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """[N x S x S x 3] -> [N x 3 x S x S] in channels-last memory, without a copy but for the device and the type."""
    # The type changes on the device: in one call, torch would make a copy of another type, which is not page-locked, first.
    return torch.from_numpy(crops).permute(0, 3, 1, 2).to(device).to(dtype)
