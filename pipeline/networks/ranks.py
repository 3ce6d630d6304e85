"""Ranks: processes that train one network together, to the bytes that one process alone makes.

1. Rank r of W computes the gradients of parts r, r + W, ... of a step's batch.
2. Every rank gets the gradients of all parts as they are. Sums that are made on the way would depend on W.
3. Every rank adds them in the order of the parts, and takes the same step.

Shape shorthand: L losses of a part, P parameters with V values in all.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

# A rank may wait for another one that reads a slow disk or validates. Who started the ranks sees when one has died.
PATIENCE = timedelta(days=30)
GLOO, NCCL = "gloo", "nccl"
Part = Callable[[], Tensor]  # computes one part's losses [L]


class Dismissed(Exception):
    """This rank has nothing left to do."""


@dataclass(frozen=True)
class Ranks:
    """This process is number `rank` of `size`. `gather(values)` returns all ranks' `values`, in order. By default it is alone.

    With `first_goes_on` the others have nothing to do after a training, and `train` raises `Dismissed` there.
    """

    rank: int = 0
    size: int = 1
    gather: Callable[[Tensor], list[Tensor]] = lambda values: [values]
    first_goes_on: bool = False

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and shows."""
        return self.rank == 0

    def owns(self, part: int) -> bool:
        """Whether it computes this part of a batch."""
        return part % self.size == self.rank

    def dismiss(self) -> None:
        """Raises `Dismissed` where there is nothing left to do."""
        if self.first_goes_on and not self.is_first:
            raise Dismissed

    def number_of_first(self, compute: Callable[[], float]) -> float:
        """The number that the first rank computes."""
        value = compute() if self.is_first else 0.0
        return self.gather(torch.tensor([value], dtype=torch.float64))[0].item()


ALONE = Ranks()


def part_of_each(losses_of_pair: Callable[..., Tensor]) -> Callable[[Sequence[tuple]], list[Part]]:
    """The `losses_of` of `training.train` for batches of tuples, each of which is a part."""
    return lambda batch: [partial(losses_of_pair, *pair) for pair in batch]


@contextlib.contextmanager
def joined(rank: int, size: int, meeting: Path, device: torch.device) -> Iterator[Ranks]:
    """Joins the ranks of this host, which meet by the file `meeting`; `device` is that of this rank."""
    from torch import distributed

    backend = NCCL if device.type == "cuda" and distributed.is_nccl_available() else GLOO
    _stay_on_this_host()
    store = distributed.FileStore(str(meeting), size)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    on_wire = device if backend == NCCL else torch.device("cpu")

    def gather(values: Tensor) -> list[Tensor]:
        sent = values.to(on_wire)
        received = [torch.empty_like(sent) for _ in range(size)]
        distributed.all_gather(received, sent)
        return [each.to(values.device) for each in received]

    try:
        yield Ranks(rank, size, gather)
    finally:
        distributed.destroy_process_group()


def _stay_on_this_host() -> None:
    """Makes ranks talk through the loopback interface: no one else can listen, and the host needs no name."""
    names = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    for backend in (GLOO, NCCL):
        if names:
            os.environ.setdefault(f"{backend.upper()}_SOCKET_IFNAME", names[0])


def add_gradients(
    ranks: Ranks, num_parts: int, parameters: Sequence[nn.Parameter], compute: Callable[[int], Tensor], num_losses: int
) -> Iterator[np.ndarray]:
    """Yields the losses [L] of each part of a step. After the last one the gradients of `parameters` are the sums over all parts.

    `compute(number)` returns one part's losses and adds its gradients to those that the parameters have.
    """
    sums: list[Tensor | None] = [None] * len(parameters)
    for first in range(0, num_parts, ranks.size):
        mine = first + ranks.rank
        losses = compute(mine) if mine < num_parts else parameters[0].new_zeros(num_losses)
        message = _message(losses.detach().reshape(-1), parameters)
        for received in ranks.gather(message)[: num_parts - first]:
            values, has, *gradients = received.split([num_losses, len(parameters), *(each.numel() for each in parameters)])
            _add(sums, parameters, gradients, has.cpu().numpy() > 0)
            yield values.cpu().numpy()
    for parameter, total in zip(parameters, sums, strict=True):
        parameter.grad = total


def _message(losses: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Losses, which parameters have a gradient, and the gradients: [L + P + V]. Takes the gradients away."""
    has = losses.new_tensor([float(parameter.grad is not None) for parameter in parameters])
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
    message = torch.cat([losses, has, *(gradient.detach().reshape(-1) for gradient in gradients)])
    for parameter in parameters:
        parameter.grad = None
    return message


@torch.no_grad()
def _add(sums: list[Tensor | None], parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor], has: np.ndarray) -> None:
    """Adds a part's `gradients`, of the parameters that `has` names, to the `sums`."""
    for number in np.flatnonzero(has).tolist():
        gradient = gradients[number].view(parameters[number].shape)
        if (total := sums[number]) is None:
            # In the parameter's own order of memory, as autograd keeps it: SGD then computes in the same order, too.
            sums[number] = torch.empty_like(parameters[number], requires_grad=False).copy_(gradient)
        else:
            total.add_(gradient)
