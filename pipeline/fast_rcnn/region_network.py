"""What a network is that detects in regions of a map: Fast R-CNN's and R-FCN's, for one training and one detection.

Shape shorthand: R regions, C classes, D channels, h x w cells of a map.
"""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from torch import Tensor

from pipeline.networks.backbones import Backbone
from pipeline.networks.sgd import ParameterGroup


class RegionNetwork(Protocol):
    """Both networks are a module with these methods. `rois` [R x 4] are those of `rois_of`."""

    backbone: Backbone

    @property
    def num_classes(self) -> int:
        """C, without the background."""

    def maps(self, conv_map: Tensor) -> Tensor:
        """What regions are pooled from, given the trunk's map [D x h x w] of their image."""

    def of_regions(self, maps: Tensor, rois: np.ndarray) -> tuple[Tensor, Tensor]:
        """Scores before the softmax [R x C + 1], float32 at least, and deltas [R x C x 4]; `maps` is what the method made."""

    def distinct(self, rois: np.ndarray) -> np.ndarray:
        """The rows of `rois`, in order, of which no two pool the same."""

    def new_groups(self, rate: float) -> list[ParameterGroup]:
        """The parameters beside the backbone's, of which the output layers learn `rate` times as fast."""

    def calibrate_on(self, examples: Iterable[tuple[Tensor, np.ndarray]]) -> None:
        """Standardises what new layers see where the backbone needs it, over `examples`: a map and regions of it each."""

    def fold(self, means: np.ndarray, deviations: np.ndarray) -> None:
        """After training: moves the calibration and the targets' normalisation [C x 4] into the weights."""

    def unfold(self, means: np.ndarray, deviations: np.ndarray) -> None:
        """Before a training that goes on: the inverse of `fold`. `calibrate_on` follows."""
