"""Ranks: processes that train one network together, to the bytes that one process alone makes.

1. Rank r of W computes the gradients of parts r, r + W, ... of a step's batch.
2. Of each of them it sends slice s to rank s. Nothing is added on the way: such sums would depend on W.
3. Rank s adds the slices that it gets in the order of the parts.
4. Every rank gets all sums, and takes the same step.

Slow networks have a faster way, whose bytes depend on W: each rank adds the gradients of its parts, and the network adds those of
the ranks, once a step.

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
    """This process is number `rank` of `size`; by default it is alone.

    `gather(values)` returns all ranks' `values`, in their order. `swap(values)` sends the first of `size` equal slices to the
    first rank, and so on; it returns what all ranks send to this one. `total(values)` returns the sum of all ranks' `values`;
    where `is_fast`, gradients are added so. With `first_goes_on` the others have nothing to do after a training, and `train`
    raises `Dismissed` there.
    """

    rank: int = 0
    size: int = 1
    gather: Callable[[Tensor], list[Tensor]] = lambda values: [values]
    swap: Callable[[Tensor], list[Tensor]] = lambda values: [values]
    total: Callable[[Tensor], Tensor] = lambda values: values
    is_fast: bool = False
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

    def swap(values: Tensor) -> list[Tensor]:
        sent = values.to(on_wire)
        received = torch.empty_like(sent)
        distributed.all_to_all_single(received, sent)
        return list(received.to(values.device).chunk(size))

    def total(values: Tensor) -> Tensor:
        sums = values.to(on_wire, copy=True)
        distributed.all_reduce(sums)
        return sums.to(values.device)

    try:
        yield Ranks(rank, size, gather, swap, total)
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
    if ranks.is_fast:
        yield from _add_fast(ranks, num_parts, parameters, compute, num_losses)
        return
    sums: Tensor | None = None  # of this rank's slice
    has_gradient = np.zeros(len(parameters), bool)
    for first in range(0, num_parts, ranks.size):
        mine = first + ranks.rank
        # 1. Compute this rank's part, if there is one left.
        losses = compute(mine) if mine < num_parts else parameters[0].new_zeros(num_losses)
        notes, gradients = _take(parameters, losses.detach().reshape(-1), ranks.size)
        # 2. and 3. Swap slices, and add them.
        for gradient in ranks.swap(gradients)[: num_parts - first]:
            sums = gradient.clone() if sums is None else sums.add_(gradient)
        for note in ranks.gather(notes)[: num_parts - first]:
            values, has = note.cpu().numpy()[:num_losses], note.cpu().numpy()[num_losses:]
            has_gradient |= has > 0
            yield values
    # 4. All sums.
    if sums is not None:
        _give(parameters, torch.cat(ranks.gather(sums)), has_gradient)


def _add_fast(ranks: Ranks, num_parts: int, parameters: Sequence[nn.Parameter], compute, num_losses: int) -> Iterator[np.ndarray]:
    """As `add_gradients`, with one exchange a step."""
    losses = parameters[0].new_zeros(-(-num_parts // ranks.size), num_losses)
    for place, number in enumerate(range(ranks.rank, num_parts, ranks.size)):
        losses[place] = compute(number)
    notes, gradients = _take(parameters, losses.flatten(), 1)
    notes_of_ranks = torch.stack(ranks.gather(notes)).cpu().numpy()
    losses_of_ranks, has = np.split(notes_of_ranks, [losses.numel()], axis=1)
    for number in range(num_parts):
        yield losses_of_ranks.reshape(ranks.size, -1, num_losses)[number % ranks.size, number // ranks.size]
    _give(parameters, ranks.total(gradients), np.sum(has, axis=0) > 0)


def _take(parameters: Sequence[nn.Parameter], losses: Tensor, slices: int) -> tuple[Tensor, Tensor]:
    """Takes the gradients away. Returns losses and which parameters have a gradient [L + P]; the gradients for equal slices."""
    has = losses.new_tensor([float(parameter.grad is not None) for parameter in parameters])
    # To add -0 changes nothing, while -0 + 0 is 0.
    gradients = [torch.full_like(each, -0.0) if each.grad is None else each.grad for each in parameters]
    flat = torch.cat([gradient.detach().reshape(-1) for gradient in gradients])
    for parameter in parameters:
        parameter.grad = None
    return torch.cat([losses, has]), nn.functional.pad(flat, (0, -len(flat) % slices))


@torch.no_grad()
def _give(parameters: Sequence[nn.Parameter], sums: Tensor, has_gradient: np.ndarray) -> None:
    """Gives the parameters their gradients."""
    first = 0
    for parameter, has in zip(parameters, has_gradient, strict=True):
        if has:
            gradient = sums[first : first + parameter.numel()].view(parameter.shape)
            # In the parameter's own order of memory, as autograd keeps it: SGD then computes in the same order, too.
            parameter.grad = torch.empty_like(parameter, requires_grad=False).copy_(gradient)
        first += parameter.numel()
