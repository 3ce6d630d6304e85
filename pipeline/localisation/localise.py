"""The localiser on images: for each the probabilities of all classes, and the boxes in pixels.

The first look is at the whole image. Each further look is at a window around the box of the look before, twice as wide and high:
there the object is larger, and others are mostly outside. Windows are cut at the image's edges. Probabilities are those of the
first look. A network with a box for each class looks at a window for each. DeepPose refines joints like this (Toshev and Szegedy
2014, section 3.2), with a network for each look; here one network does all.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline import boxes as box_algebra
from pipeline.detection.candidates import Candidates
from pipeline.files.npz import load_arrays
from pipeline.files.writing import write_arrays
from pipeline.localisation.network import Localiser
from pipeline.localisation.windows import from_fractions, mirrored_fractions
from pipeline.networks.compute import mixed_precision
from pipeline.networks.window_inputs import as_input, crop

ZOOM = 2.0  # ours: sides of a further look's window, in sides of the box. Chosen on held-out training photographs
SMALLEST_LOOK = 16  # ours: shortest side of such a window in pixels
AT_ONCE = 32  # windows of an image that go through the network together: it bounds the memory where each class has a window


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of M images: `scores` float32 [M x C], probabilities, and `boxes` float32 [M x C x 4] in pixels, cut at the image's edges.
    """

    scores: np.ndarray
    boxes: np.ndarray

    def save(self, path: Path) -> None:
        write_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        arrays = load_arrays(path, ["scores", "boxes"])
        return cls(arrays["scores"], arrays["boxes"])

    @classmethod
    def join(cls, parts: list["Predictions"]) -> "Predictions":
        return cls(np.concatenate([part.scores for part in parts]), np.concatenate([part.boxes for part in parts]))


class ImageLocaliser:
    """A trained localiser for single images, at which it looks `looks` times.

    With `mirror` each look also sees its window mirrored: probabilities and boxes are the means of both.
    """

    def __init__(self, model: Localiser, device: torch.device, precision: str, *, mirror: bool = False, looks: int = 1):
        self.model = model.eval().to(device).to(memory_format=torch.channels_last)
        self.device, self.precision, self.views, self.looks = device, precision, (False, True)[: 1 + mirror], looks

    def predict(self, pixels: np.ndarray) -> Predictions:
        """The predictions [1 x ...] for one image, uint8 RGB [height x width x 3]."""
        height, width = pixels.shape[:2]
        probabilities, boxes = self._look(pixels, np.array([[0, 0, width, height]]))
        for _ in range(self.looks - 1):
            windows, window_of_class = np.unique(windows_around(boxes[0], height, width), axis=0, return_inverse=True)
            parts = np.array_split(windows, -(-len(windows) // AT_ONCE))
            closer = np.concatenate([self._look(pixels, part)[1] for part in parts])
            boxes = closer[window_of_class.reshape(-1), np.arange(len(window_of_class))][None]
        return Predictions(probabilities, boxes)

    def _look(self, pixels: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The probabilities [W x C] and the boxes in pixels [W x C x 4] of `windows` [W x 4] of an image."""
        side, norm = self.model.layout.side, self.model.backbone.view.norm
        of_views = []
        for mirrored in self.views:
            values = crop(pixels, windows, np.full(len(windows), mirrored), side, norm)
            with torch.inference_mode(), mixed_precision(self.device, self.precision):
                scores, fractions = self.model(as_input(values, self.device))
            probabilities, fractions = scores.float().softmax(dim=1).cpu().numpy(), fractions.cpu().numpy()
            of_views.append((probabilities, mirrored_fractions(fractions) if mirrored else fractions))
        probabilities, fractions = (np.mean(values, axis=0) for values in zip(*of_views, strict=True))
        boxes = from_fractions(fractions, windows[:, None]).astype(np.float32)
        return probabilities, box_algebra.clip(boxes, *pixels.shape[:2])

    def detect(self, pixels: np.ndarray) -> Candidates:
        """The one detection of an image: the likeliest class, its probability and its box."""
        predicted = self.predict(pixels)
        label = predicted.scores[0].argmax()
        best = np.array([label], np.int32), predicted.scores[0, [label]], predicted.boxes[0, [label]]
        return Candidates(*best, survives=np.array([True]))


def windows_around(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Windows ZOOM times as wide and high as `boxes` [N x 4], cut at the image's edges: int64 [N x 4]."""
    middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum((boxes[:, 2:] - boxes[:, :2]) * ZOOM, SMALLEST_LOOK)
    corners = np.concatenate([np.floor(middles - sides / 2), np.ceil(middles + sides / 2)], axis=1)
    return box_algebra.clip(corners, height, width).astype(np.int64)
