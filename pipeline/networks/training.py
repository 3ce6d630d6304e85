"""Stochastic gradient descent in numbered steps, resumable to the same bytes.

Step t draws its batch and its dropout from generators seeded by t alone, so that a run resumed from a checkpoint sees what an
undisturbed one would have seen.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.files.writing import WriteError
from pipeline.networks.checkpoints import resume, resume_from, save_checkpoint
from pipeline.networks.continuing import Start
from pipeline.networks.sgd import MOMENTUM, SGD, ParameterGroup
from pipeline.networks.validation import Validation
from pipeline.seeding import derive_seed

logger = logging.getLogger("pipeline")

CHECKPOINT_SECONDS = 30.0


def silently(items: Iterable, total: int | None = None, about: Callable[[], str] | None = None) -> Iterator:
    """A progress that shows nothing."""
    return iter(items)


@dataclass(frozen=True)
class Schedule:
    """`iterations` steps at `learning_rate`, which falls to a tenth after every `lr_step` of them.

    Over the first `warm_up` steps the rate rises in equal parts from its share `warm_up_start` (Goyal et al. 2017, section 2.2).
    With `clip` the gradients of a step are scaled down to this norm of all of them together, if it is larger (`clip_gradients` in
    Caffe's solvers).
    """

    iterations: int
    learning_rate: float
    lr_step: int
    warm_up: int = 0
    warm_up_start: float = 0.0
    clip: float = 0.0

    def rate(self, step: int) -> float:
        rate = self.learning_rate * 0.1 ** (step // self.lr_step)
        if step >= self.warm_up:
            return rate
        return rate * (self.warm_up_start + (1 - self.warm_up_start) * (step + 1) / self.warm_up)


@dataclass(frozen=True)
class TrainingRun:
    """What all trainings share: their steps, random draws, device, checkpoints and progress.

    `checkpoint` is a folder in which the state is saved now and then and from which a killed run resumes. `progress` shows the
    loss, the rate and the pace; `log(step, values)` gets every step's rate and losses. With `start` the training goes on from
    another one; with `keep` the state after the last step is saved in this file. `validation` chooses the best of the networks.
    """

    schedule: Schedule
    seed: int
    device: torch.device
    precision: str = "float32"
    checkpoint: Path | None = None
    progress: Callable[..., Iterator] = silently
    log: Callable[[int, dict[str, float]], None] | None = None
    start: Start | None = None
    keep: Path | None = None
    validation: Validation | None = None


def train(
    model: nn.Module, run: TrainingRun, *, groups: list[ParameterGroup], batches: Callable[[int], Iterable],
    losses_of: Callable[..., Iterable[Tensor]], names: Sequence[str] = (), images_a_step: int = 0,
    momentum: float = MOMENTUM, finished: Callable[[], Any] | None = None,
) -> np.ndarray:
    """Trains `model` in place; returns the losses of each step, float32 [iterations x L].

    `batches(first)` yields the batches of the steps from `first` on. `losses_of(batch)` yields losses [L] that are descended
    together; several losses have `names`. A batch may come in parts, one after another, so that the activations of one part at a
    time are held. With `images_a_step` progress shows the pace. `finished` makes of a copy of the model what is validated; then
    there may be fewer steps, and the model is the best one.
    Raises PipelineError when a loss is not finite any more.
    """
    optimizer, schedule, validation = SGD(groups, momentum), run.schedule, run.validation
    losses = np.zeros((schedule.iterations, max(1, len(names))), np.float32)
    first = _first_step(run, model, optimizer, losses)
    last = first if validation and validation.is_over else schedule.iterations
    model.train()
    step, started = first, time.monotonic()
    saved, done = started, first

    def about() -> str:
        recent = losses[max(first, step - 20) : step + 1].sum(axis=1).mean()
        pace = images_a_step * (step + 1 - first) / (time.monotonic() - started)
        shown = f", {pace:.3g} images a second" if images_a_step else ""
        return f"loss {recent:.3f}, learning rate {schedule.rate(step):.2g}{shown}"

    steps = zip(range(first, last), batches(first), strict=False)
    for step, batch in run.progress(steps, last - first, about):
        _seed_torch(derive_seed(run.seed, "step", step))
        _descend(run, step, losses_of(batch), optimizer, losses)
        done = step + 1
        if run.log:
            values = dict(zip(names or ("loss",), losses[step].tolist(), strict=True))
            run.log(done, {"learning rate": schedule.rate(step), **values})
        if is_scored := bool(validation and validation.is_due(done, schedule.iterations)):
            _validate(run, done, model, finished)
        if run.checkpoint and (is_scored or time.monotonic() - saved > CHECKPOINT_SECONDS):
            _save(run, model, optimizer, losses[:done])
            saved = time.monotonic()
        if validation and validation.is_over:
            break
    if run.keep:
        save_checkpoint(run.keep.parent, model, optimizer, losses[:done], more=_scores(run), name=run.keep.name)
    if validation:
        validation.restore_best(model)
    model.eval()
    return losses[:done]


def _first_step(run: TrainingRun, model: nn.Module, optimizer: SGD, losses: np.ndarray) -> int:
    """Restores the state of this run or, at its beginning, of the one that it goes on from; returns how many steps are done."""
    first = resume(run.checkpoint, model, optimizer, losses, run.validation) if run.checkpoint else 0
    if first or not run.start:
        return first
    if run.start.state:
        first = resume_from(run.start.state, model, optimizer, losses, run.validation)
    return first or run.start.steps


def _descend(run: TrainingRun, step: int, parts: Iterable[Tensor], optimizer: SGD, losses: np.ndarray) -> None:
    """Takes one step on a batch, whose `parts` are losses that are computed one after another."""
    for part in parts:
        part.sum().backward()
        losses[step] += part.detach().float().cpu().numpy()
    if run.schedule.clip:
        nn.utils.clip_grad_norm_(optimizer.parameters, run.schedule.clip)
    optimizer.step(run.schedule.rate(step))
    if not np.isfinite(losses[step]).all():
        raise PipelineError(f"the loss became {losses[step].sum()} in step {step + 1}; lower the learning rate")


def _validate(run: TrainingRun, done: int, model: nn.Module, finished: Callable[[], Any] | None) -> None:
    assert run.validation is not None
    model.eval()
    run.validation.add(done, model, finished() if finished else model)
    model.train()
    if run.log:
        run.log(done, {"validation": run.validation.scores[-1][1]})


def _scores(run: TrainingRun) -> dict[str, Tensor]:
    return run.validation.tensors() if run.validation else {}


def _save(run: TrainingRun, model: nn.Module, optimizer: SGD, losses: np.ndarray) -> None:
    assert run.checkpoint is not None
    try:
        save_checkpoint(run.checkpoint, model, optimizer, losses, more=_scores(run))
    except WriteError as error:  # hours of training are worth more than this checkpoint
        place = error.filename, error.strerror
        logger.warning("%s: %s; meanwhile the training goes on without a checkpoint", *place)


def _seed_torch(seed: int) -> None:
    """As `torch.manual_seed`, which spends a millisecond on recording where a GPU that is not in use would be seeded from."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def loss_table(losses: np.ndarray, schedule: Schedule, names: Sequence[str] = (), first: int = 0) -> str:
    """The training curve as CSV: step, learning rate, loss and, where it has several, its parts by their `names`.

    It begins after the `first` steps.
    """
    rows = [
        ",".join([f"{step + 1},{schedule.rate(step):.6g},{parts.sum():.6g}", *(f"{part:.6g}" for part in parts[: len(names)])])
        for step, parts in enumerate(losses[first:], first)
    ]
    return "\n".join([",".join(["step,learning_rate,loss", *names]), *rows]) + "\n"
