"""What segmenting one image costs: pixels that go through the first convolution, and multiplications of all layers.

The lecture's comparison: windows around single pixels share nothing, so nearly every pixel is computed again for each window.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.tables import format_table

FCN32S = "fcn32s"


@dataclass
class Cost:
    """Pixels through the first convolution that runs, and multiplications with their additions."""

    pixels: int = 0
    operations: int = 0
    first: nn.Module | None = field(default=None, repr=False)

    def add_input(self, module: nn.Module, inputs: tuple) -> None:
        self.first = self.first or module
        if module is self.first:
            images = inputs[0]
            self.pixels += images.shape[0] * images.shape[2] * images.shape[3]


@contextmanager
def _counted_inputs(model: nn.Module, cost: Cost) -> Iterator[None]:
    hooks = [module.register_forward_pre_hook(cost.add_input) for module in model.modules() if isinstance(module, nn.Conv2d)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def count_cost(model: nn.Module, segment: Callable[[np.ndarray], object], pixels: np.ndarray) -> Cost:
    """What `segment(pixels)` costs, which runs `model`."""
    cost = Cost()
    with _counted_inputs(model, cost), FlopCounterMode(display=False) as counter:
        segment(pixels)
    cost.operations = counter.get_total_flops() // 2  # the counter counts a multiplication and an addition as two
    return cost


def of_every_pixel(cost: Cost, size: Sequence[int], windows: int) -> Cost:
    """The cost of a window around every pixel of an image of `size` (H, W), from that of `windows`: all cost the same."""
    ratio = size[0] * size[1] / windows
    return Cost(round(cost.pixels * ratio), round(cost.operations * ratio))


def cost_row(name: str, cost: Cost, stride: int) -> dict:
    return {"name": name, "stride": stride, "pixels": cost.pixels, "operations": cost.operations}


def with_ratios(rows: list[dict]) -> list[dict]:
    """The rows, each with its operations as a multiple of fcn32s's."""
    base = next(row["operations"] for row in rows if row["name"] == FCN32S)
    return [{**row, "over_fcn32s": row["operations"] / base} for row in rows]


def cost_table(rows: list[dict], seconds: dict[str, float]) -> str:
    """The rows as text; `seconds` are those that were measured."""
    lines = [
        [row["name"], str(row["stride"]), f"{row['pixels'] / 1e6:.3f}", f"{row['operations'] / 1e9:.3f}",
         f"{row['over_fcn32s']:.1f}", f"{seconds[row['name']]:.3g}" if row["name"] in seconds else "not run"]
        for row in rows
    ]
    headers = ["method", "stride", "megapixels through convs", "billion multiplications", "times fcn32s", "seconds"]
    return format_table(headers, lines)
