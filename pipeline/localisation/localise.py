"""The localiser on whole images: for each the probabilities of all classes, and the boxes in pixels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline import boxes as box_algebra
from pipeline.detection.candidates import Candidates
from pipeline.files.npz import load_arrays
from pipeline.files.writing import write_arrays
from pipeline.localisation.network import Localiser
from pipeline.localisation.windows import from_fractions
from pipeline.networks.compute import mixed_precision
from pipeline.networks.whole_images import mirror_boxes
from pipeline.networks.window_inputs import as_input, crop


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
    """A trained localiser for single images.

    With `mirror` it also sees each image mirrored: probabilities and boxes are the means of both.
    """

    def __init__(self, model: Localiser, device: torch.device, precision: str, mirror: bool = False):
        self.model = model.eval().to(device).to(memory_format=torch.channels_last)
        self.device, self.precision, self.views = device, precision, np.array([False, True][: 1 + mirror])

    def predict(self, pixels: np.ndarray) -> Predictions:
        """The predictions [1 x ...] for one image, uint8 RGB [height x width x 3]."""
        height, width = pixels.shape[:2]
        window, side = np.array([[0, 0, width, height]]), self.model.layout.side
        windows = window.repeat(len(self.views), axis=0)
        values = crop(pixels, windows, self.views, side, self.model.backbone.view.norm)
        with torch.inference_mode(), mixed_precision(self.device, self.precision):
            scores, boxes = self.model(as_input(values, self.device))
            probabilities = scores.float().softmax(dim=1).mean(dim=0)
        views = zip(boxes.cpu().numpy(), self.views.tolist(), strict=True)
        fractions = np.mean([mirror_boxes(of_view, 1) if mirrored else of_view for of_view, mirrored in views], axis=0)
        in_pixels = from_fractions(fractions, window).astype(np.float32)
        return Predictions(probabilities.cpu().numpy()[None], box_algebra.clip(in_pixels, height, width)[None])

    def detect(self, pixels: np.ndarray) -> Candidates:
        """The one detection of an image: the likeliest class, its probability and its box."""
        predicted = self.predict(pixels)
        label = predicted.scores[0].argmax()
        best = np.array([label], np.int32), predicted.scores[0, [label]], predicted.boxes[0, [label]]
        return Candidates(*best, survives=np.array([True]))
