"""Training the localiser: both heads at once, with or without the layers below them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pipeline.datasets.records import ImageRecord
from pipeline.localisation.network import LOSSES, Layout, Localiser, heads_loss
from pipeline.localisation.windows import Views, WindowSampler, view_batches
from pipeline.networks.backbones import Backbone
from pipeline.networks.compute import mixed_precision
from pipeline.networks.parts import parts_of
from pipeline.networks.ranks import Part
from pipeline.networks.sgd import ParameterGroup, parameter_groups
from pipeline.networks.training import TrainingRun, train
from pipeline.networks.weights import load_tensors
from pipeline.networks.window_inputs import as_input
from pipeline.seeding import derive_seed

ALL, HEADS = TRAINED = "all", "heads"  # which layers are trained
CALIBRATION_WINDOWS, CALIBRATION_TARGETS = 32, 1000  # windows over which the map is standardised, and boxes are


@dataclass(frozen=True)
class HeadSettings:
    """How the two heads are trained.

    `trained`: all layers from the first on that the backbone does not freeze on whole images, or the heads alone. Heads learn
    `rate` times as fast as the rest. The loss is the softmax's plus `box_weight` times the box head's. `classifier` are the
    tensors of a softmax head for the same classes, if the first weights have one.
    """

    trained: str = ALL
    rate: float = 1.0
    box_weight: float = 1.0
    classifier: Mapping[str, Tensor] | None = None


def train_localiser(
    backbone: Backbone, layout: Layout, run: TrainingRun, *, sampler: WindowSampler, read: Callable[[ImageRecord], np.ndarray],
    settings: HeadSettings,
) -> tuple[Localiser, np.ndarray]:
    """Trains `backbone` in place with two heads; returns the network and both losses of each step [iterations x 2]."""
    device = run.device
    torch.manual_seed(derive_seed(run.seed, "heads"))
    model = Localiser(backbone, layout)
    if settings.classifier is not None:
        load_tensors(model.scores, dict(settings.classifier), "the first weights' classifier")
    few = next(view_batches(sampler, read, 0, side=layout.side, norm=backbone.view.norm))[0][:CALIBRATION_WINDOWS]
    model.calibrate(as_input(few, torch.device("cpu")), sampler.targets(CALIBRATION_TARGETS), settings.classifier is None)
    model = model.to(device).to(memory_format=torch.channels_last)
    for number, module in enumerate(backbone.trunk):
        module.requires_grad_(settings.trained == ALL and number >= backbone.frozen)
    backbone.fc.requires_grad_(settings.trained == ALL)
    weights = torch.tensor([1.0, settings.box_weight], device=device)

    def losses_of_rows(values: np.ndarray, views: Views, rows: slice) -> Tensor:
        with mixed_precision(device, run.precision):
            scores, boxes = model(as_input(values[rows], device))
        labels, targets = (torch.from_numpy(values_of[rows]).to(device) for values_of in (views.labels, views.boxes))
        losses = heads_loss(scores, boxes / model.box_deviation, labels, targets / model.box_deviation)
        return losses * weights / len(values)

    def losses_of(batch: tuple[np.ndarray, Views]) -> list[Part]:
        return [partial(losses_of_rows, *batch, rows) for rows in parts_of(len(batch[0]), layout.side)]

    def batches(first: int) -> Iterator[tuple[np.ndarray, Views]]:
        return view_batches(sampler, read, first, side=layout.side, norm=backbone.view.norm)

    losses = train(model, run, groups=_groups(model, settings.rate), batches=batches, losses_of=losses_of, names=LOSSES)
    return model, losses


def _groups(model: Localiser, rate: float) -> list[ParameterGroup]:
    heads = [group for head in (model.scores, model.boxes) for group in parameter_groups(head, rate)]
    return parameter_groups(model.backbone) + heads
