"""Validation during a training: the network is scored now and then, and the best one is kept.

A score depends on the weights alone, so that a run that was killed and goes on ends with the same bytes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

BEST, SCORES = "best.", "scores"  # names of tensors in a checkpoint, or how they begin


class Validation:
    """Scores a network after every `every` steps and after the last one; `score(network)` says how good it is.

    With a `patience` of N the training ends when N scores one after another were no better than the best. `tell(done, score,
    is_best)` hears of each. `scores` are pairs: how many steps were done, and the score.
    """

    def __init__(
        self, every: int, patience: int, score: Callable[[Any], float],
        tell: Callable[[int, float, bool], None] = lambda done, score, is_best: None,
    ):
        self.every, self.patience, self.score, self.tell = every, patience, score, tell
        self.scores: list[tuple[int, float]] = []
        self._best: dict[str, Tensor] = {}

    @property
    def best(self) -> tuple[int, float]:
        """The steps that the best network had seen, and its score; of equal ones the first."""
        return max(self.scores, key=lambda pair: pair[1])

    @property
    def is_over(self) -> bool:
        """Whether the training ends, since it gains no more."""
        without_gain = len(self.scores) - 1 - self.scores.index(self.best) if self.scores else 0
        return 0 < self.patience <= without_gain

    def is_due(self, done: int, iterations: int) -> bool:
        return done % self.every == 0 or done == iterations

    def add(self, done: int, model: nn.Module, score: float) -> None:
        """Takes the score of the network that is made of `model` after `done` steps."""
        self.scores.append((done, score))
        is_best = self.best[0] == done
        if is_best:
            self._best = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.tell(*self.scores[-1], is_best)

    def restore_best(self, model: nn.Module) -> None:
        if self._best:
            model.load_state_dict(self._best)

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint needs."""
        best = {BEST + name: value.cpu().contiguous() for name, value in self._best.items()}
        return {**best, SCORES: torch.from_numpy(np.array(self.scores, np.float64).reshape(-1, 2))}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`; other tensors of the checkpoint may be among them."""
        self._best = {name.removeprefix(BEST): value for name, value in tensors.items() if name.startswith(BEST)}
        self.scores = [(int(done), score) for done, score in tensors[SCORES].tolist()] if SCORES in tensors else []

    def table(self) -> str:
        """The scores as CSV."""
        return "\n".join(["step,score", *(f"{done},{score:.6g}" for done, score in self.scores)]) + "\n"
