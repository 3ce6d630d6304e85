"""A finished training that another one goes on from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from pipeline.networks.weights import load_tensors


@dataclass(frozen=True)
class Start:
    """`steps` were made; `networks` are the tensors of each part that was trained, from `source`.

    `state` is a checkpoint after the last step, with the velocities: then the next step is the one that the training itself
    would have made. Without it the velocities begin at 0.
    """

    steps: int
    networks: Mapping[str, dict[str, Tensor]]
    source: str
    state: Path | None = None

    def load(self, part: str, module: nn.Module) -> None:
        """Gives `module` the weights of `part`. Raises PipelineError, naming `source`, where they do not fit."""
        load_tensors(module, self.networks[part], self.source)
