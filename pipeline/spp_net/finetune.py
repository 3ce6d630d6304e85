"""Fine-tuning of SPP-net's fully connected layers (He et al. 2014, section 4.1): the conv layers stay as they are.

A new layer of C + 1 scores comes after the last fully connected one. All learn at one rate
(pascal_finetune_fc_spm_train.prototxt of ShaoqingRen/SPP_net), on batches of 32 regions of objects and 96 of the background.

Shape shorthand: N regions of a batch, P values of a pyramid.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.networks.backbones import Backbone
from pipeline.networks.compute import mixed_precision
from pipeline.networks.output_layers import OutputLayers
from pipeline.networks.ranks import Part
from pipeline.networks.sgd import parameter_groups
from pipeline.networks.training import TrainingRun, train
from pipeline.seeding import derive_seed

Batches = Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]]


class PyramidClassifier(OutputLayers):
    """A backbone whose fully connected layers read the pyramid, and a score for each class, the background being class 0."""

    def __init__(self, backbone: Backbone, num_outputs: int):
        super().__init__(backbone)
        self.scores = self.output_layer(num_outputs, 0.01)  # fc8_pascal in pascal_finetune_fc_spm_train.prototxt

    def forward(self, pyramid: Tensor) -> Tensor:
        """[N x P] -> scores [N x num_outputs], before the softmax."""
        return self.scores(self.last_layer(pyramid))


def finetune_layers(
    backbone: Backbone, run: TrainingRun, *, num_classes: int, batches: Batches, class_weights: np.ndarray | None = None
) -> tuple[PyramidClassifier, np.ndarray]:
    """Fine-tunes the fully connected layers of `backbone` (see `put_on_pyramid`) in place.

    `batches(first)` as of `pooled_batches`; `class_weights` [C + 1] are factors of the log
    loss. Returns the layers with their classifier, and the loss of each step.
    """
    device = run.device
    torch.manual_seed(derive_seed(run.seed, "classifier"))
    model = PyramidClassifier(backbone, num_classes + 1).to(device)
    weights = None if class_weights is None else torch.from_numpy(class_weights).to(device)

    def loss_of(batch: tuple[np.ndarray, np.ndarray]) -> Tensor:
        rows, labels = (torch.from_numpy(part).to(device) for part in batch)
        with mixed_precision(device, run.precision):
            scores = model(rows.float())
        if weights is None:
            return nn.functional.cross_entropy(scores.float(), labels)
        # divided by the number of regions, not by the sum of their weights
        return nn.functional.cross_entropy(scores.float(), labels, weights, reduction="sum") / len(labels)

    def losses_of(batch: tuple[np.ndarray, np.ndarray]) -> list[Part]:
        return [partial(loss_of, batch)]

    groups = parameter_groups(backbone.fc) + parameter_groups(model.scores)  # all but the trunk
    losses = train(model, run, groups=groups, batches=batches, losses_of=losses_of)
    return model, losses
