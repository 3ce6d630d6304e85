"""Training Fast R-CNN (Girshick 2015, section 2.3): regions of two images per step, gradients through RoI pooling into the trunk.

The map of an image comes from the trunk or, when the whole trunk is frozen, from a cache of maps.

Shape shorthand: R regions of an image's share of a batch, D channels.
"""

import copy
import itertools
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pipeline.fast_rcnn.hard_examples import hard_losses
from pipeline.fast_rcnn.losses import LOSSES, fast_rcnn_loss
from pipeline.fast_rcnn.network import FastRCNN
from pipeline.fast_rcnn.sampling import RegionSample, RegionSampler
from pipeline.networks.backbones import Backbone
from pipeline.networks.compute import for_inference, mixed_precision
from pipeline.networks.map_inputs import CALIBRATION_STEPS, Inputs, MapInput, map_of, read_ahead
from pipeline.networks.ranks import Part
from pipeline.networks.sgd import parameter_groups
from pipeline.networks.training import TrainingRun, train
from pipeline.networks.whole_images import rois_of
from pipeline.seeding import derive_seed


def freeze(backbone: Backbone, which: str) -> None:
    """Excludes part of the trunk from training: its `first` layers as in the release, `all` or `none`."""
    count = {"none": 0, "first": backbone.frozen, "all": len(backbone.trunk)}[which]
    for module in backbone.trunk[:count]:
        module.requires_grad_(False)


def train_fast_rcnn(
    backbone: Backbone, run: TrainingRun, *, sampler: RegionSampler, inputs: Inputs, output_rate: float = 1.0,
    light: bool = False, class_weights: np.ndarray | None = None,
) -> tuple[FastRCNN, np.ndarray]:
    """Trains a Fast R-CNN on `backbone`, in place; returns it and the losses of each step, float32 [iterations x 2].

    `inputs` gives, for the image of each sample, what to make its map from; it may read ahead. The output layers learn
    `output_rate` times as fast as the rest. With `light` the trunk sees images in changing light. What is validated is the
    network, ready for inference. `class_weights` [C + 1] are factors of the log loss.
    """
    device, precision, settings = run.device, run.precision, sampler.settings
    weights = None if class_weights is None else torch.from_numpy(class_weights).to(device)
    torch.manual_seed(derive_seed(run.seed, "output layers"))
    model = FastRCNN(backbone, len(sampler.means), settings.agnostic)
    if run.start:
        run.start.load("network", model)
        model.unfold(sampler.means, sampler.deviations)
    model = model.to(device).to(memory_format=torch.channels_last)
    batches = read_ahead(sampler.draw, inputs, settings.images, run.seed if light else None)

    def pool5_of(sample: RegionSample, map_input: MapInput) -> Tensor:
        values = map_of(backbone, map_input, sample.mirrored, device, precision)
        return model.pool(values, rois_of(sample.boxes, map_input.scaling))

    def losses_of_image(sample: RegionSample, map_input: MapInput, images: int, regions: int) -> Tensor:
        labels, targets = torch.from_numpy(sample.labels).to(device), torch.from_numpy(sample.targets).to(device)
        if settings.hard:
            with mixed_precision(device, precision):
                values = map_of(backbone, map_input, sample.mirrored, device, precision)
            rois, of_regions = rois_of(sample.boxes, map_input.scaling), partial(_outputs, model, values, run)
            return hard_losses(of_regions, rois, labels, targets, settings.regions_of_image, class_weights=weights) / images
        with mixed_precision(device, precision):
            scores, deltas = model(pool5_of(sample, map_input))
        return fast_rcnn_loss(scores.float(), deltas.float(), labels, targets, weights) / max(1, regions)

    def losses_of(batch: list[tuple[RegionSample, MapInput]]) -> list[Part]:
        regions = sum(len(sample.labels) for sample, _ in batch)
        return [partial(losses_of_image, *pair, len(batch), regions) for pair in batch]

    def finished() -> FastRCNN:
        network = copy.deepcopy(model)
        network.fold(sampler.means, sampler.deviations)
        return for_inference(network, device, precision)

    if model.is_calibrated:
        few = itertools.chain.from_iterable(itertools.islice(batches(0), CALIBRATION_STEPS))
        with torch.no_grad(), mixed_precision(device, precision):
            model.calibrate(torch.cat([pool5_of(*pair) for pair in few]))
    outputs = parameter_groups(model.scores, output_rate) + parameter_groups(model.deltas, output_rate)
    losses = train(
        model, run, groups=parameter_groups(backbone) + outputs, batches=partial(batches, ranks=run.ranks), losses_of=losses_of,
        names=LOSSES, images_a_step=settings.images, finished=finished,
    )
    model.fold(sampler.means, sampler.deviations)
    return model, losses


def _outputs(model: FastRCNN, values: Tensor, run: TrainingRun, rois: np.ndarray) -> tuple[Tensor, Tensor]:
    """Scores and deltas of `rois` in the map `values`, in float32."""
    with mixed_precision(run.device, run.precision):
        scores, deltas = model.of_regions(values, rois)
    return scores.float(), deltas.float()
