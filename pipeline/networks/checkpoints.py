"""Checkpoints of a training: model, velocities, losses and scores in one file, replaced in one move, checked by a digest."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pipeline.files.writing import cannot_write, new_digest, write_tensors
from pipeline.networks.sgd import SGD
from pipeline.networks.validation import Validation

logger = logging.getLogger("pipeline")

CHECKPOINT = "checkpoint.safetensors"
DIGEST = "digest"  # of a checkpoint, in its file's metadata
MODEL, MOMENTUM, LOSSES = "model.", "momentum.", "losses"  # names of tensors, or how they begin


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: SGD, losses: np.ndarray, *, more: Mapping[str, Tensor] | None = None,
    name: str = CHECKPOINT,
) -> None:
    """Replaces the checkpoint `name` in `folder`. `losses` are those of the steps so far. Raises WriteError.

    `more` are the tensors of a `Validation`.
    """
    tensors = {MODEL + name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    for number, value in enumerate(optimizer.velocities):
        if value is not None:
            tensors[f"{MOMENTUM}{number}"] = value.cpu().contiguous()
    tensors[LOSSES] = torch.from_numpy(losses.copy())
    tensors |= more or {}
    part = folder / "checkpoint.part"
    write_tensors(part, tensors, {DIGEST: checkpoint_digest(tensors)})
    try:
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        part.replace(folder / name)
    except OSError as error:
        raise cannot_write(part, error) from error


def checkpoint_digest(tensors: dict[str, Tensor]) -> str:
    """A digest of names and values, so that a damaged file is not resumed from."""
    digest = new_digest()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def resume(folder: Path, model: nn.Module, optimizer: SGD, losses: np.ndarray, validation: Validation | None = None) -> int:
    """Restores the checkpoint in `folder`, if there is one; returns how many steps are done."""
    return resume_from(folder / CHECKPOINT, model, optimizer, losses, validation)


def resume_from(path: Path, model: nn.Module, optimizer: SGD, losses: np.ndarray, validation: Validation | None = None) -> int:
    """Restores the checkpoint `path`, if there is one; returns how many steps are done."""
    if not path.is_file() or path.is_symlink():
        return 0
    try:
        with safe_open(path, "pt") as file:
            tensors, recorded = {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get(DIGEST)  # noqa: SIM118
        if recorded != checkpoint_digest(tensors):
            raise SafetensorError("its content is not what was written")
    except (OSError, SafetensorError) as error:  # after a power cut, say
        logger.warning("%s: not readable (%s); training starts anew", path, error)
        return 0
    values = {name.removeprefix(MODEL): value for name, value in tensors.items() if name.startswith(MODEL)}
    if _shapes(values) != _shapes(model.state_dict()):
        logger.warning("%s: of another version of the network; training starts anew", path)
        return 0
    model.load_state_dict(values)
    for number, parameter in enumerate(optimizer.parameters):
        if (velocity := tensors.get(f"{MOMENTUM}{number}")) is not None:
            optimizer.velocities[number] = torch.empty_like(parameter, requires_grad=False).copy_(velocity)
    done = len(tensors[LOSSES])
    losses[:done] = tensors[LOSSES].numpy()
    if validation:
        validation.load(tensors)
    return done


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}
