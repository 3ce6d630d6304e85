"""Stochastic gradient descent with momentum, as `torch.optim.SGD` does it, to the bit.

Ours, because every optimizer of torch imports its compiler, which takes seconds in each process that trains.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

MOMENTUM = 0.9  # pascal_finetune_solver.prototxt of rbgirshick/rcnn
WEIGHT_DECAY = 0.0005  # the same
# Caffe's convention in the release's networks: biases learn twice as fast as weights and do not decay.
BIAS_RATE = 2.0


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that learn `factor` times as fast as the schedule says, and shrink by `weight_decay`."""

    parameters: list[nn.Parameter]
    factor: float = 1.0
    weight_decay: float = 0.0


def parameter_groups(module: nn.Module, factor: float = 1.0) -> list[ParameterGroup]:
    """Weights and biases of `module` that are trained, learning `factor` times as fast as the schedule says."""
    trained = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    weights = [value for name, value in trained if not name.endswith("bias")]
    biases = [value for name, value in trained if name.endswith("bias")]
    return [ParameterGroup(weights, factor, WEIGHT_DECAY), ParameterGroup(biases, factor * BIAS_RATE)]


class SGD:
    """Descends on `groups`. `velocities` are those of all their parameters, in order; None before a parameter's first step.

    NOTE: a velocity is multiplied by the current rate; Caffe multiplies each gradient by its own. Steps differ just after a drop.
    """

    def __init__(self, groups: list[ParameterGroup]):
        self.groups = groups
        self.parameters = [parameter for group in groups for parameter in group.parameters]
        self.velocities: list[Tensor | None] = [None] * len(self.parameters)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step at the learning rate `rate`; takes the gradients away."""
        decays = [(group.factor, group.weight_decay) for group in self.groups for _ in group.parameters]
        for number, (parameter, (factor, decay)) in enumerate(zip(self.parameters, decays, strict=True)):
            if parameter.grad is None:
                continue
            gradient = parameter.grad.add(parameter, alpha=decay) if decay else parameter.grad
            velocity = self.velocities[number]
            if velocity is None:
                velocity = self.velocities[number] = gradient.clone()
            else:
                velocity.mul_(MOMENTUM).add_(gradient)
            parameter.add_(velocity, alpha=-rate * factor)
            parameter.grad = None
