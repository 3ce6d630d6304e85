"""Stochastic gradient descent in numbered steps, resumable to the same bytes.

Step t draws its batch and its dropout from generators seeded by t alone, so that a run resumed from a checkpoint sees what an
undisturbed one would have seen.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.files.writing import WriteError
from pipeline.networks.checkpoints import resume, save_checkpoint
from pipeline.networks.sgd import MOMENTUM, SGD, ParameterGroup
from pipeline.seeding import derive_seed

logger = logging.getLogger("pipeline")

CHECKPOINT_SECONDS = 30.0


def silently(items: Iterable, total: int | None = None, about: Callable[[], str] | None = None) -> Iterator:
    """A progress that shows nothing."""
    return iter(items)


@dataclass(frozen=True)
class Schedule:
    """`iterations` steps at `learning_rate`, which falls to a tenth after every `lr_step` of them."""

    iterations: int
    learning_rate: float
    lr_step: int

    def rate(self, step: int) -> float:
        return self.learning_rate * 0.1 ** (step // self.lr_step)


@dataclass(frozen=True)
class TrainingRun:
    """What all trainings share: their steps, random draws, device, checkpoints and progress.

    `checkpoint` is a folder in which the state is saved now and then and from which a killed run resumes. `progress` shows the
    loss, the rate and the pace; `log(step, values)` gets every step's rate and losses.
    """

    schedule: Schedule
    seed: int
    device: torch.device
    precision: str = "float32"
    checkpoint: Path | None = None
    progress: Callable[..., Iterator] = silently
    log: Callable[[int, dict[str, float]], None] | None = None


def train(
    model: nn.Module, run: TrainingRun, *, groups: list[ParameterGroup], batches: Callable[[int], Iterable],
    losses_of: Callable[..., Iterable[Tensor]], names: Sequence[str] = (), images_a_step: int = 0,
    momentum: float = MOMENTUM,
) -> np.ndarray:
    """Trains `model` in place; returns the losses of each step, float32 [iterations x L].

    `batches(first)` yields the batches of the steps from `first` on. `losses_of(batch)` yields losses [L] that are descended
    together; several losses have `names`. A batch may come in parts, one after another, so that the activations of one part at a
    time are held. With `images_a_step` progress shows the pace.
    Raises PipelineError when a loss is not finite any more.
    """
    optimizer, schedule = SGD(groups, momentum), run.schedule
    losses = np.zeros((schedule.iterations, max(1, len(names))), np.float32)
    first = resume(run.checkpoint, model, optimizer, losses) if run.checkpoint else 0
    model.train()
    step, started = first, time.monotonic()
    saved = started

    def about() -> str:
        recent = losses[max(first, step - 20) : step + 1].sum(axis=1).mean()
        pace = images_a_step * (step + 1 - first) / (time.monotonic() - started)
        shown = f", {pace:.3g} images a second" if images_a_step else ""
        return f"loss {recent:.3f}, learning rate {schedule.rate(step):.2g}{shown}"

    steps = zip(range(first, schedule.iterations), batches(first), strict=False)
    for step, batch in run.progress(steps, schedule.iterations - first, about):
        _seed_torch(derive_seed(run.seed, "step", step))
        for part in losses_of(batch):
            part.sum().backward()
            losses[step] += part.detach().float().cpu().numpy()
        optimizer.step(schedule.rate(step))
        if not np.isfinite(losses[step]).all():
            raise PipelineError(f"the loss became {losses[step].sum()} in step {step + 1}; lower the learning rate")
        if run.log:
            values = dict(zip(names or ("loss",), losses[step].tolist(), strict=True))
            run.log(step + 1, {"learning rate": schedule.rate(step), **values})
        if run.checkpoint and time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(run.checkpoint, model, optimizer, losses[: step + 1])
            saved = time.monotonic()
    model.eval()
    return losses


def _save(folder: Path, model: nn.Module, optimizer: SGD, losses: np.ndarray) -> None:
    try:
        save_checkpoint(folder, model, optimizer, losses)
    except WriteError as error:  # hours of training are worth more than this checkpoint
        place = error.filename, error.strerror
        logger.warning("%s: %s; meanwhile the training goes on without a checkpoint", *place)


def _seed_torch(seed: int) -> None:
    """As `torch.manual_seed`, which spends a millisecond on recording where a GPU that is not in use would be seeded from."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def loss_table(losses: np.ndarray, schedule: Schedule, names: Sequence[str] = ()) -> str:
    """The training curve as CSV: step, learning rate, loss and, where it has several, its parts by their `names`."""
    rows = [
        ",".join([f"{step + 1},{schedule.rate(step):.6g},{parts.sum():.6g}", *(f"{part:.6g}" for part in parts[: len(names)])])
        for step, parts in enumerate(losses)
    ]
    return "\n".join([",".join(["step,learning_rate,loss", *names]), *rows]) + "\n"
