"""Runs a training on several ranks: forks of the test's process, which share what it has imported and made."""

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.networks.ranks import Ranks, joined

SECONDS = 60.0


def on_ranks(size: int, work: Callable[[Ranks], object]) -> list:
    """What `work(ranks)` returns on each of `size` ranks. Torch should have one thread: a fork cannot use its parent's."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(size)]
        processes = [
            context.Process(target=_run, args=(work, rank, size, Path(folder) / "meeting", pipe[1]), daemon=True)
            for rank, pipe in enumerate(pipes)
        ]
        for process, (_, end) in zip(processes, pipes, strict=True):
            process.start()
            end.close()
        try:
            answers = [end.recv() if end.poll(SECONDS) else "no answer" for end, _ in pipes]
        finally:
            for process in processes:
                process.kill()
                process.join()
    for answer in answers:
        assert not isinstance(answer, str), answer
    return [result for (result,) in answers]


def _run(work: Callable, rank: int, size: int, meeting: Path, answer) -> None:
    try:
        with joined(rank, size, meeting, torch.device("cpu")) as ranks:
            answer.send((work(ranks),))
    except BaseException:
        answer.send(traceback.format_exc())
