"""Training the network of one stage of a pose."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pipeline.datasets.records import ImageRecord
from pipeline.networks.backbones import Backbone
from pipeline.networks.compute import mixed_precision
from pipeline.networks.parts import parts_of
from pipeline.networks.ranks import Part
from pipeline.networks.sgd import parameter_groups
from pipeline.networks.training import TrainingRun, train
from pipeline.networks.window_inputs import as_input
from pipeline.pose.network import PoseNetwork, pose_loss
from pipeline.pose.sampling import Batch, ObjectWindows, pose_batches
from pipeline.seeding import derive_seed

CALIBRATION_TARGETS = 2000  # windows whose targets are standardised


@dataclass(frozen=True)
class StageSettings:
    """`side`: of the windows, in pixels; new layers learn `rate` times as fast as the backbone; `light`: whether it changes."""

    side: int
    rate: float = 1.0
    light: bool = False


def train_pose(
    backbone: Backbone, run: TrainingRun, *, sampler: ObjectWindows, images: Sequence[ImageRecord],
    read: Callable[[ImageRecord], np.ndarray], settings: StageSettings,
) -> tuple[PoseNetwork, np.ndarray]:
    """Trains `backbone` in place with a new output layer; returns the network and the loss of each step."""
    device = run.device
    torch.manual_seed(derive_seed(run.seed, "output"))
    model = PoseNetwork(backbone, sampler.objects.labelled.shape[1], settings.side)

    def batches(first: int) -> Iterator[tuple[np.ndarray, Batch]]:
        return pose_batches(sampler, images, read, first, side=settings.side, norm=backbone.view.norm, light=settings.light)

    drawn = [sampler.draw(step) for step in range(-(-CALIBRATION_TARGETS // sampler.batch_size))]
    few = next(batches(0))[0]
    few = few[parts_of(len(few), settings.side)[0]]
    targets, labelled = (np.concatenate([getattr(batch, name) for batch in drawn]) for name in ("targets", "labelled"))
    model.calibrate(as_input(few, torch.device("cpu")), targets, labelled)
    model = model.to(device).to(memory_format=torch.channels_last)
    for number, module in enumerate(backbone.trunk):
        module.requires_grad_(number >= backbone.frozen)

    def loss_of(values: np.ndarray, batch: Batch, rows: slice) -> Tensor:
        with mixed_precision(device, run.precision):
            outputs = model(as_input(values[rows], device))
        wanted = model.standardised(torch.from_numpy(batch.targets[rows]).to(device))
        joints = max(1, int(batch.labelled.sum()))
        return pose_loss(outputs, wanted, torch.from_numpy(batch.labelled[rows]).to(device)) / joints

    def losses_of(batch: tuple[np.ndarray, Batch]) -> list[Part]:
        return [partial(loss_of, *batch, rows) for rows in parts_of(len(batch[0]), settings.side)]

    groups = parameter_groups(backbone)
    groups += [group for layer in (model.hidden, model.output) for group in parameter_groups(layer, settings.rate)]
    losses = train(model, run, groups=groups, batches=batches, losses_of=losses_of)
    return model, losses
