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
    """Descends on `groups` with `momentum`.

    `velocities` are those of all their parameters, in order; None before a parameter's first step.
    NOTE: a velocity is multiplied by the current rate; Caffe multiplies each gradient by its own. Steps differ just after a drop.
    """

    def __init__(self, groups: list[ParameterGroup], momentum: float = MOMENTUM):
        self.groups, self.momentum = groups, momentum
        self.parameters = [parameter for group in groups for parameter in group.parameters]
        self.velocities: list[Tensor | None] = [None] * len(self.parameters)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step at the learning rate `rate`; takes the gradients away."""
        first = 0
        for group in self.groups:
            numbers = [first + k for k, parameter in enumerate(group.parameters) if parameter.grad is not None]
            first += len(group.parameters)
            if numbers:
                self._descend(numbers, rate * group.factor, group.weight_decay)

    def _descend(self, numbers: list[int], rate: float, decay: float) -> None:
        """Moves the parameters of these `numbers`. Operations on lists, as torch's own: on a GPU one kernel serves all."""
        parameters: list[Tensor] = [self.parameters[number] for number in numbers]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if decay:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=decay))
        velocities = [velocity for number in numbers if (velocity := self.velocities[number]) is not None]
        if len(velocities) == len(numbers):
            torch._foreach_mul_(velocities, self.momentum)
            torch._foreach_add_(velocities, gradients)
        else:
            velocities = [self._moved(number, gradient) for number, gradient in zip(numbers, gradients, strict=True)]
        torch._foreach_add_(parameters, velocities, alpha=-rate)
        for parameter in parameters:
            parameter.grad = None

    def _moved(self, number: int, gradient: Tensor) -> Tensor:
        """The velocity after `gradient`: in a parameter's first step the gradient itself."""
        if (velocity := self.velocities[number]) is None:
            velocity = self.velocities[number] = gradient.clone()
            return velocity
        return velocity.mul_(self.momentum).add_(gradient)
