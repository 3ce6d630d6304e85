"""The cascade: a pose from an object's box, then each joint refined in a window around it (section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.networks.compute import mixed_precision
from pipeline.networks.window_inputs import as_input, crop, whole_pixels
from pipeline.pose.geometry import enlarged, from_window, longer_sides, windows_around
from pipeline.pose.network import PoseNetwork

WINDOWS_AT_A_TIME = 128


@dataclass(frozen=True)
class Framing:
    """Stage 1 looks at the box, `context` times as large, as a square if `square`; later ones at `sigma` longer sides of it."""

    context: float
    square: bool
    sigma: float


class PoseEstimator:
    """The networks of the stages, for the objects of single images."""

    def __init__(self, networks: Sequence[PoseNetwork], framing: Framing, device: torch.device, precision: str):
        self.networks = [network.eval().to(device).to(memory_format=torch.channels_last) for network in networks]
        self.framing, self.device, self.precision = framing, device, precision

    def estimate(self, pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """The joints after each stage, float64 [S x N x k x 2], of the objects in `boxes` [N x 4] of an image."""
        joints = [self.first(pixels, boxes)]
        for network in self.networks[1:]:
            joints.append(self.refine(network, pixels, boxes, joints[-1]))
        return np.stack(joints)

    def estimate_found(self, pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """As `estimate`; the joints of objects without a box, which is NaN, are NaN."""
        has_box = np.isfinite(boxes).all(axis=1)
        of_found = self.estimate(pixels, boxes[has_box])
        joints = np.full((of_found.shape[0], len(boxes), *of_found.shape[2:]), np.nan)
        joints[:, has_box] = of_found
        return joints

    def first(self, pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Stage 1: the joints [N x k x 2] of the objects in `boxes` [N x 4]."""
        windows = whole_pixels(enlarged(np.asarray(boxes, np.float64), self.framing.context, self.framing.square))
        parts = self._parts(self.networks[0], pixels, windows)
        return from_window(parts, windows[:, None].astype(np.float64))

    def refine(self, network: PoseNetwork, pixels: np.ndarray, boxes: np.ndarray, joints: np.ndarray) -> np.ndarray:
        """A later stage: `joints` [N x k x 2] after it, each by the window around where it was."""
        sides = self.framing.sigma * longer_sides(np.asarray(boxes, np.float64))
        windows = whole_pixels(windows_around(joints, sides))
        count = joints.shape[1]
        parts = self._parts(network, pixels, windows.reshape(-1, 4)).reshape(*joints.shape[:2], count, 2)
        own = parts[:, np.arange(count), np.arange(count)]
        return from_window(own, windows.astype(np.float64))

    def _parts(self, network: PoseNetwork, pixels: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """N(y; b) [N x k x 2] of all joints in each of `windows` [N x 4]."""
        parts = [np.zeros((0, network.joints, 2))]
        for start in range(0, len(windows), WINDOWS_AT_A_TIME):
            some = windows[start:start + WINDOWS_AT_A_TIME]
            values = crop(pixels, some, np.zeros(len(some), bool), network.side, network.backbone.view.norm)
            with torch.inference_mode(), mixed_precision(self.device, self.precision):
                parts.append(network.parts(network(as_input(values, self.device))).cpu().double().numpy())
        return np.concatenate(parts)
