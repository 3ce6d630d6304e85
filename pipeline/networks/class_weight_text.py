"""How class weights are written: `none`, `balanced` or `name=weight,...`. Without NumPy, so that commands start quickly."""

import math

from pipeline.errors import PipelineError

NONE, BALANCED = "none", "balanced"


def parse_weights(text: str) -> dict[str, float]:
    """The weights in `name=weight,...`. Raises PipelineError unless each is a positive number and each name is given once."""
    weights: dict[str, float] = {}
    for item in text.split(","):
        name, _, number = (part.strip() for part in item.rpartition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name or name in weights or not 0 < weight < math.inf:
            raise PipelineError(
                f"found {item.strip()!r}, expected {NONE}, {BALANCED} or name=weight,... with positive weights, each name once"
            )
        weights[name] = weight
    return weights
