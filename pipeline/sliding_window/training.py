"""Training the window network: softmax on windows of objects and of background, L2 on the edges of the object's box.

1. A step sees tiles of scaled images. The dense pass scores all their windows.
2. Of each tile are chosen: windows on objects, background windows at random, and those that look most like an object now.
3. Both losses of the chosen windows are descended together.

NOTE: OverFeat trains the classifier first, on crops, and the regressor on its frozen layers. Dense tiles give the same gradients
for a window as its crop does, where no layer pads its input, and both heads share the trunk here.

Shape shorthand: B tiles, M windows of a tile, C classes.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.datasets.records import ImageRecord
from pipeline.networks.backbones import Backbone
from pipeline.networks.compute import mixed_precision
from pipeline.networks.parts import parts_of
from pipeline.networks.ranks import Part
from pipeline.networks.sgd import parameter_groups
from pipeline.networks.training import TrainingRun, train
from pipeline.seeding import derive_seed
from pipeline.sliding_window.network import CELLS, WindowNetwork
from pipeline.sliding_window.sampling import TileBatch, TileSampler

LOSSES = ("class_loss", "box_loss")
ON_OBJECTS, AT_RANDOM, OFFENDING = 8, 4, 4  # ours: windows of each kind that are chosen of a tile
RMS = 0.3  # ours: of the map's values at the start; at 1 the box loss diverges
# Ours: a batch's gradient is summed over parts, so that only their activations are in memory.
PIXELS_AT_A_TIME = 32 * 147**2


def train_windows(
    backbone: Backbone, run: TrainingRun, *, sampler: TileSampler, num_classes: int, read: Callable[[ImageRecord], np.ndarray],
    box_weight: float, output_rate: float = 1.0, cells: int = CELLS,
) -> tuple[WindowNetwork, np.ndarray]:
    """Trains a window network that begins with the layers of `backbone`; returns it and the losses [iterations x 2].

    The box loss counts `box_weight` times. The output layers learn `output_rate` times as fast as the trunk.
    """
    torch.manual_seed(derive_seed(run.seed, "window outputs"))
    model = WindowNetwork(backbone, num_classes, cells).to(run.device).to(memory_format=torch.channels_last)
    calibrate(model, next(sampler.batches(read, 0)), run.device)
    groups = parameter_groups(model.trunk)
    for outputs in (model.scores, model.edges):
        groups += parameter_groups(outputs, output_rate)
    losses_of = partial(step_losses, model, run, box_weight=box_weight)
    losses = train(
        model, run, groups=groups, batches=partial(sampler.batches, read), losses_of=losses_of, names=LOSSES,
        images_a_step=sampler.order.images_a_step,
    )
    return model, losses


@torch.no_grad()
def calibrate(model: WindowNetwork, batch: TileBatch, device: torch.device) -> None:
    """Sets `map_scale`, so that the root of the mean square of the map's values is RMS."""
    values = model.make_map(tiles_to_tensor(batch.pixels[:2], device)).float()
    mean_square = values.square().mean()
    if mean_square > 0:
        model.map_scale.copy_(RMS * mean_square.rsqrt())


def tiles_to_tensor(pixels: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2)


def step_losses(model: WindowNetwork, run: TrainingRun, batch: TileBatch, *, box_weight: float) -> list[Part]:
    """The functions that compute the two losses of each part of a batch."""
    counts = np.array([chosen_counts(labels) for labels in batch.labels]).sum(axis=0)
    num_chosen, num_objects = max(1, int(counts.sum())), max(1, int(counts[0]))

    def losses_of(rows: slice) -> Tensor:
        with mixed_precision(run.device, run.precision):
            scores, edges = model(tiles_to_tensor(batch.pixels[rows], run.device))
        scores, edges = scores.flatten(2).transpose(1, 2).float(), edges.flatten(2).transpose(1, 2).float()
        offence = 1 - scores.detach().softmax(dim=2)[:, :, 0].cpu().numpy()
        chosen = [choose(*of_tile) for of_tile in zip(batch.labels[rows], batch.keys[rows], offence, strict=True)]
        tile = np.repeat(np.arange(len(chosen)), [len(windows) for windows in chosen])
        window = np.concatenate(chosen)
        labels = torch.from_numpy(batch.labels[rows][tile, window]).to(run.device)
        targets = torch.from_numpy(batch.edges[rows][tile, window]).to(run.device)
        class_loss = nn.functional.cross_entropy(scores[tile, window], labels, reduction="sum") / num_chosen
        squares = ((edges[tile, window] - targets) ** 2)[labels > 0]
        return torch.stack([class_loss, box_weight * squares.sum() / (2 * num_objects)])

    return [partial(losses_of, rows) for rows in parts_of(len(batch.labels), batch.pixels.shape[1], PIXELS_AT_A_TIME)]


def chosen_counts(labels: np.ndarray) -> tuple[int, int]:
    """How many windows with these `labels` [M] are chosen: those on objects, those on background."""
    return min(ON_OBJECTS, int((labels > 0).sum())), min(AT_RANDOM + OFFENDING, int((labels == 0).sum()))


def choose(labels: np.ndarray, keys: np.ndarray, offence: np.ndarray) -> np.ndarray:
    """The numbers of a tile's windows to learn from. `keys` [M] order them at random, `offence` [M] by how wrong they are."""
    objects, background = np.flatnonzero(labels > 0), np.flatnonzero(labels == 0)
    objects = objects[np.argsort(keys[objects], kind="stable")][:ON_OBJECTS]
    background = background[np.argsort(keys[background], kind="stable")]
    at_random, others = background[:AT_RANDOM], background[AT_RANDOM:]
    offending = others[np.argsort(-offence[others], kind="stable")][:OFFENDING]
    return np.concatenate([objects, at_random, offending])
