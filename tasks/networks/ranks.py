"""Stages that train in several processes, each with a GPU of its own or on the CPU (`--devices`).

They make the bytes of one process, except with `--reduce fast`.
"""

import abc
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

from luigi.task_register import load_task

from pipeline.errors import PipelineError
from tasks.engine import parameters
from tasks.engine.errors import UserError
from tasks.engine.group import MemberDied, run_group
from tasks.engine.memory import peak_memory
from tasks.engine.trouble import memory_advice
from tasks.engine.workshop import Workshop
from tasks.networks.base import NetworkTask

CUDA = "cuda"
EXACT, FAST = REDUCE = "exact", "fast"


class RankedTraining(NetworkTask):
    """A stage that trains a network by `training.train`, on as many ranks as `--devices` says."""

    devices = parameters.integer(
        1, "run", "devices", "processes that share a training, each with its own GPU or on the CPU", minimum=1, significant=False
    )
    reduce = parameters.choice(
        EXACT, REDUCE, "run", "reduce",
        "how the processes of --devices add gradients; exact: the bytes are those of one process; fast: they send less, and the "
        "bytes depend on their number",
        significant=False,
    )
    draws = True  # whether torch draws random numbers in a part, as for dropout
    rank_group = None  # its `Ranks`, in a process of several

    @property
    @abc.abstractmethod
    def parts_a_step(self) -> int:
        """At most how many parts a step's batch has: more ranks would have nothing to do."""

    def resolve(self) -> dict:
        # Each part has draws of its own since 0.2. Those of a single part did not change, and so stay out of keys.
        draws = {"draws": "by part"} if self.draws and self.parts_a_step > 1 else {}
        return {**super().resolve(), **draws, **({"reduced": self.num_ranks} if self.is_fast else {})}

    @property
    def num_ranks(self) -> int:
        return min(self.devices, self.parts_a_step)

    @property
    def is_fast(self) -> bool:
        """Whether the bytes depend on the number of ranks."""
        return self.reduce == FAST and self.num_ranks > 1

    @property
    def cores_needed(self) -> tuple[int, int]:
        least, most = super().cores_needed
        return least * self.num_ranks, most * self.num_ranks

    @property
    def cluster_resources(self) -> tuple[str, ...]:
        return super().cluster_resources * self.num_ranks

    @property
    def ranks(self):
        from pipeline.networks.ranks import ALONE

        return self.rank_group or ALONE

    def prepare(self):
        """The torch device of this rank, with threads and determinism set."""
        from pipeline.networks.compute import prepare

        return prepare(rank_device(self.device, self.ranks.rank, self.ranks.size), self.num_threads)

    def run_of(self, workshop: Workshop, schedule, seed: int, device, **more):
        """The `TrainingRun` of this training."""
        from pipeline.networks.training import TrainingRun

        return TrainingRun(
            schedule, seed, device, self.arithmetic, workshop.checkpoint, progress=self.progress("step"), ranks=self.ranks, **more
        )

    def make_files(self, workshop: Workshop) -> dict | None:
        if self.num_ranks == 1:
            return self.build(workshop)
        check_devices(self.device, self.num_ranks)
        task = self.task_module, self.task_family, self.to_str_params(), self.key, self.progress_row
        with tempfile.TemporaryDirectory() as folder:
            try:
                results = run_group(self.num_ranks, train_as_rank, self.num_ranks, f"{folder}/meeting", task, workshop)
            except MemberDied as error:
                raise UserError(f"{self.label}: {error}: {memory_advice(self)}") from error
        self.pool_memory = max(memory for _, memory in results)
        return results[0][0]


def rank_device(device: str, rank: int, size: int) -> str:
    """The name of the device of a rank."""
    return f"{CUDA}:{rank}" if size > 1 and device == CUDA else device


def check_devices(device: str, size: int) -> None:
    """Raises PipelineError where `size` ranks cannot have a device each."""
    if device not in ("cpu", CUDA):
        raise PipelineError(f"--device {device}: names one device, and --devices asks for {size}; give --device {CUDA}, or cpu")


def train_as_rank(rank: int, size: int, meeting: str, task: tuple, workshop: Workshop) -> tuple[dict | None, int]:
    """Builds the stage as rank `rank` of `size`; returns its figures, None but for the first rank, and its peak memory."""
    from pipeline.networks.compute import prepare
    from pipeline.networks.ranks import Dismissed, joined

    module, family, settings, key, progress_row = task
    stage = load_task(module, family, settings)
    if stage.key != key:
        raise UserError(
            f"{stage.label}: has other settings in the processes of --devices {size}; give settings as docs/settings.md names "
            "them, or in luigi.cfg"
        )
    stage.progress_row = progress_row
    if rank:
        warnings.simplefilter("ignore")  # the first one shows them
    name = rank_device(stage.device, rank, size)
    if name.startswith(CUDA):
        import torch

        if torch.cuda.device_count() < size:
            raise PipelineError(f"--devices {size}: torch sees {torch.cuda.device_count()} CUDA devices here; give fewer")
        torch.cuda.set_device(rank)
    with joined(rank, size, Path(meeting), prepare(name, stage.num_threads)) as ranks:
        stage.rank_group = replace(ranks, first_goes_on=True, is_fast=stage.is_fast)
        try:
            return stage.build(workshop), peak_memory()
        except Dismissed:
            return None, peak_memory()
