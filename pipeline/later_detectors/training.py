"""Training one of torchvision's detectors by our schedule, seeds and checkpoints.

NOTE: as in the other chains biases learn twice as fast as weights and do not decay. RetinaNet's and Mask R-CNN's releases treat
them alike, and decay by 0.0001.
"""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from pipeline.later_detectors.network import LaterDetector, predicts_masks
from pipeline.later_detectors.sampling import Batch, DetectionBatches
from pipeline.networks.compute import mixed_precision
from pipeline.networks.ranks import Part
from pipeline.networks.sgd import ParameterGroup, parameter_groups
from pipeline.networks.training import TrainingRun, train

ONE_STAGE = "classification", "bbox_regression"
TWO_STAGES = "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"
LARGEST_GRADIENT = 10.0  # norm of one layer's; the first steps of a region-based detector may be larger


def loss_names(detector: LaterDetector) -> tuple[str, ...]:
    """The names of the detector's losses."""
    if isinstance(detector.network, GeneralizedRCNN):
        return (*TWO_STAGES, "loss_mask") if predicts_masks(detector) else TWO_STAGES
    is_fcos = detector.design.chain.endswith("fcos_resnet50_fpn")
    return (*ONE_STAGE, "bbox_ctrness") if is_fcos else ONE_STAGE


def train_detector(detector: LaterDetector, run: TrainingRun, batches: DetectionBatches, *, new_rate: float = 1.0) -> np.ndarray:
    """Trains `detector` in place; returns the losses of each step, float32 [iterations x L], in the order of `loss_names`.

    What is not the trunk learns `new_rate` times as fast. What is validated is a copy of the detector.
    """
    device, precision, names = run.device, run.precision, loss_names(detector)
    if run.start:
        run.start.load("network", detector)
    detector.to(device).to(memory_format=torch.channels_last)

    def losses_of_batch(batch: Batch) -> Tensor:
        images = [image.to(device) for image in batch[0]]
        targets = [{name: value.to(device) for name, value in target.items()} for target in batch[1]]
        with mixed_precision(device, precision):
            losses = detector(images, targets)
        return torch.stack([losses[name].float() for name in names])

    def losses_of(batch: Batch) -> list[Part]:
        return [partial(losses_of_batch, batch)]

    hooks = [parameter.register_hook(limit_norm) for parameter in detector.parameters() if parameter.requires_grad]
    losses = train(
        detector, run, groups=groups_of(detector, new_rate), batches=batches, losses_of=losses_of, names=names,
        images_a_step=batches.order.images_a_step, finished=lambda: copy.deepcopy(detector),
    )
    for hook in hooks:
        hook.remove()
    return losses


def groups_of(detector: LaterDetector, new_rate: float) -> list[ParameterGroup]:
    """The parameters of the trunk, and the others."""
    trunk = _pretrained(detector.network.get_submodule("backbone"))
    inside = {id(parameter) for parameter in trunk.parameters()}
    groups = []
    for group in parameter_groups(detector):
        for is_trunk in True, False:
            parameters = [value for value in group.parameters if (id(value) in inside) is is_trunk]
            groups.append(replace(group, parameters=parameters, factor=group.factor * (1 if is_trunk else new_rate)))
    return groups


def _pretrained(backbone: nn.Module) -> nn.Module:
    """The part of a detector's backbone that came from a classifier."""
    inner = "maps.trunk" if hasattr(backbone, "maps") else "body" if hasattr(backbone, "body") else ""
    return backbone.get_submodule(inner)


def limit_norm(gradient: Tensor) -> Tensor:
    """The gradient of one layer, at most `LARGEST_GRADIENT` long."""
    return gradient * (LARGEST_GRADIENT / gradient.norm().clamp(min=LARGEST_GRADIENT))
