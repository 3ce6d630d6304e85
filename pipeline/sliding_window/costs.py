"""What sliding windows cost: windows, and pixels that go through the conv layers, naively and densely.

Naively each window of S x S pixels goes through them on its own; densely the framed image does, once.

Shape shorthand: I images, L scales.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.records import ImageRecord
from pipeline.sliding_window.layout import WindowLayout, scalings
from pipeline.tables import format_table


@dataclass(frozen=True, eq=False)
class Costs:
    """Of each image at each scale, int64 [I x L]: `windows`, and pixels through the conv layers in both ways."""

    scales: tuple[float, ...]
    windows: np.ndarray
    naive_pixels: np.ndarray
    dense_pixels: np.ndarray

    @property
    def ratio(self) -> float:
        """How many times as many pixels the naive way takes, over all images and scales."""
        return float(self.naive_pixels.sum() / self.dense_pixels.sum())

    def ratio_interval(self, resamples: int, generator: np.random.Generator) -> list[float]:
        """The ends of the 95 % percentile bootstrap interval of `ratio` over the images."""
        naive, dense = self.naive_pixels.sum(axis=1), self.dense_pixels.sum(axis=1)
        counts = generator.multinomial(len(naive), np.full(len(naive), 1 / len(naive)), size=resamples)
        return np.quantile(counts @ naive / (counts @ dense), [0.025, 0.975]).tolist()

    def to_json(self) -> dict:
        by_scale = [
            {"scale": scale, "windows": float(windows), "naive_pixels": float(naive), "dense_pixels": float(dense)}
            for scale, windows, naive, dense in zip(
                self.scales, *(each.mean(axis=0) for each in (self.windows, self.naive_pixels, self.dense_pixels)), strict=True
            )
        ]
        return {"images": len(self.windows), "by_scale": by_scale, "naive_over_dense": self.ratio}


def count_costs(images: Sequence[ImageRecord], layout: WindowLayout, scales: tuple[float, ...]) -> Costs:
    """The costs of `images`, from their sizes alone."""
    grids = np.array([
        [layout.grid(scaling.size) for scaling in scalings(image.height, image.width, layout, scales)] for image in images
    ], np.int64).reshape(len(images), len(scales), 2)
    windows = grids.prod(axis=2)
    dense = (layout.side + layout.stride * (grids - 1)).prod(axis=2)
    return Costs(scales, windows, windows * layout.side**2, dense)


def cost_table(costs: dict) -> str:
    """What `Costs.to_json` gave, as a table of means per image."""
    rows = [
        [f"{row['scale']:g}", round(row["windows"]), row["naive_pixels"] / 1e6, row["dense_pixels"] / 1e6,
         row["naive_pixels"] / row["dense_pixels"]] for row in costs["by_scale"]
    ]
    windows, naive, dense = (sum(row[name] for row in costs["by_scale"]) for name in ("windows", "naive_pixels", "dense_pixels"))
    rows.append(["all", round(windows), naive / 1e6, dense / 1e6, costs["naive_over_dense"]])
    headers = ["scale", "windows an image", "naive megapixels", "dense megapixels", "naive / dense"]
    return format_table(headers, rows, footer=1, decimals=2)
