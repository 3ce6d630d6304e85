"""How much the dense and the naive way differ, and how long each takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.sliding_window.detect import ScaleScores


@dataclass
class Comparison:
    """Collects images that were run in both ways."""

    seconds: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    largest_difference: float = 0.0
    largest_box_difference: float = 0.0

    def add_seconds(self, naive: bool, seconds: float) -> None:
        self.seconds[naive].append(seconds)

    def add(self, naive: Sequence[ScaleScores], dense: Sequence[ScaleScores]) -> None:
        """Compares all windows of an image."""
        for first, second in zip(naive, dense, strict=True):
            difference = np.abs(first.probabilities - second.probabilities).max()
            self.largest_difference = max(self.largest_difference, float(difference))
            self.largest_box_difference = max(self.largest_box_difference, float(np.abs(first.boxes - second.boxes).max()))

    def figures(self) -> dict[str, float]:
        """Seconds an image of both ways, and the largest differences of a probability and of an edge in pixels."""
        return {
            "naive_seconds": float(np.mean(self.seconds[True])), "dense_seconds": float(np.mean(self.seconds[False])),
            "largest_difference": self.largest_difference, "largest_box_difference": self.largest_box_difference,
        }
