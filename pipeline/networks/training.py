"""Stochastic gradient descent in numbered steps, resumable to the same bytes.

Step t draws its batch and its dropout from generators seeded by t alone, so that a run resumed from a checkpoint sees what an
undisturbed one would have seen.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.files.writing import WriteError, cannot_write, new_digest, write_tensors
from pipeline.seeding import derive_seed

logger = logging.getLogger("pipeline")

MOMENTUM = 0.9  # pascal_finetune_solver.prototxt of rbgirshick/rcnn
WEIGHT_DECAY = 0.0005  # the same
# Caffe's convention in the release's networks: biases learn twice as fast as weights and do not decay.
BIAS_RATE = 2.0
CHECKPOINT_SECONDS = 30.0
CHECKPOINT = "checkpoint.safetensors"
DIGEST = "digest"  # of a checkpoint, in its file's metadata


def silently(items: Iterable, total: int | None = None, about: Callable[[], str] | None = None) -> Iterator:
    """The progress that shows nothing."""
    return iter(items)


@dataclass(frozen=True)
class Schedule:
    """`iterations` steps at `learning_rate`, which falls to a tenth after every `lr_step` of them."""

    iterations: int
    learning_rate: float
    lr_step: int

    def rate(self, step: int) -> float:
        return self.learning_rate * 0.1 ** (step // self.lr_step)


def parameter_groups(module: nn.Module, factor: float = 1.0) -> list[dict]:
    """Groups for `train`: weights and biases of `module`, learning `factor` times as fast as the schedule says."""
    trained = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    weights = [value for name, value in trained if not name.endswith("bias")]
    biases = [value for name, value in trained if name.endswith("bias")]
    return [
        {"params": weights, "factor": factor, "weight_decay": WEIGHT_DECAY},
        {"params": biases, "factor": factor * BIAS_RATE, "weight_decay": 0.0},
    ]


def train(
    model: nn.Module, groups: list[dict], schedule: Schedule, batches: Callable[[int], Iterable],
    losses_of: Callable[..., Iterable[Tensor]], seed: int, checkpoint: Path | None = None,
    progress: Callable[..., Iterator] = silently, names: Sequence[str] = (), images_a_step: int = 0,
    log: Callable[[int, dict[str, float]], None] | None = None,
) -> np.ndarray:
    """Trains `model` in place; returns the losses of each step, float32 [iterations x L].

    `batches(first)` yields the batches of the steps from `first` on. `losses_of(batch)` yields losses [L] that are descended
    together, `names` being theirs where there are several; a batch may come in parts, one after another, so that no more than one
    part's activations are held. `checkpoint` is a folder in which the state is saved now and then and from which a killed run
    goes on. `progress` shows the loss, the rate and, with `images_a_step`, the pace; `log(step, values)` is told every step's.
    Raises PipelineError when a loss is not finite any more.
    """
    # NOTE: torch multiplies the velocity by the current rate, Caffe each gradient by its own: other steps just after a drop.
    optimizer = torch.optim.SGD([{**group, "lr": 0.0} for group in groups], lr=0.0, momentum=MOMENTUM)
    losses = np.zeros((schedule.iterations, max(1, len(names))), np.float32)
    first = _resume(checkpoint, model, optimizer, losses) if checkpoint else 0
    model.train()
    step, started = first, time.monotonic()
    saved = started

    def about() -> str:
        recent = losses[max(first, step - 20) : step + 1].sum(axis=1).mean()
        pace = images_a_step * (step + 1 - first) / (time.monotonic() - started)
        shown = f", {pace:.3g} images a second" if images_a_step else ""
        return f"loss {recent:.3f}, learning rate {schedule.rate(step):.2g}{shown}"

    steps = zip(range(first, schedule.iterations), batches(first), strict=False)
    for step, batch in progress(steps, schedule.iterations - first, about):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step) * group["factor"]
        _seed_torch(derive_seed(seed, "step", step))
        optimizer.zero_grad()
        for part in losses_of(batch):
            part.sum().backward()
            losses[step] += part.detach().float().cpu().numpy()
        optimizer.step()
        if not np.isfinite(losses[step]).all():
            raise PipelineError(f"the loss became {losses[step].sum()} in step {step + 1}; lower the learning rate")
        if log:
            values = dict(zip(names or ("loss",), losses[step].tolist(), strict=True))
            log(step + 1, {"learning rate": schedule.rate(step), **values})
        if checkpoint and time.monotonic() - saved > CHECKPOINT_SECONDS:
            try:
                _save(checkpoint, model, optimizer, losses, step + 1)
            except WriteError as error:  # hours of training are worth more than this checkpoint
                place = error.filename, error.strerror
                logger.warning("%s: %s; meanwhile the training goes on without a checkpoint", *place)
            saved = time.monotonic()
    model.eval()
    return losses


def _seed_torch(seed: int) -> None:
    """As `torch.manual_seed`, which spends a millisecond on recording where a GPU that is not in use would be seeded from."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def _save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, losses: np.ndarray, done: int) -> None:
    """Replaces the checkpoint in `folder` in one move."""
    tensors = {f"model.{name}": value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    for number, value in enumerate(_momenta(optimizer)):
        tensors[f"momentum.{number}"] = value.cpu().contiguous()
    tensors["losses"] = torch.from_numpy(losses[:done].copy())
    part = folder / "checkpoint.part"
    write_tensors(part, tensors, {DIGEST: checkpoint_digest(tensors)})
    try:
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        part.replace(folder / CHECKPOINT)
    except OSError as error:
        raise cannot_write(part, error) from error


def checkpoint_digest(tensors: dict[str, Tensor]) -> str:
    """A digest of names and values: what a damaged file holds is not gone on from."""
    digest = new_digest()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _resume(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, losses: np.ndarray) -> int:
    """Restores the checkpoint in `folder`; returns how many steps are done."""
    path = folder / CHECKPOINT
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
    model.load_state_dict({name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")})
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    for number, parameter in enumerate(parameters):
        buffer = tensors[f"momentum.{number}"].to(parameter.device)
        optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)
    done = len(tensors["losses"])
    losses[:done] = tensors["losses"].numpy()
    return done


def _momenta(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    return [optimizer.state[value]["momentum_buffer"] for value in parameters]


def loss_table(losses: np.ndarray, schedule: Schedule, names: Sequence[str] = ()) -> str:
    """The training curve as CSV: step, learning rate, loss and, where it has several, its parts by their `names`."""
    rows = [
        ",".join([f"{step + 1},{schedule.rate(step):.6g},{parts.sum():.6g}", *(f"{part:.6g}" for part in parts[: len(names)])])
        for step, parts in enumerate(losses)
    ]
    return "\n".join([",".join(["step,learning_rate,loss", *names]), *rows]) + "\n"
