"""Score maps of sliding windows, drawn over their image.

Shape shorthand: C classes, m x n positions of windows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.files.npz import load_arrays
from pipeline.report.embedding import jpeg_uri

PICTURE = 360  # pixels of the longer side
DARKEST = 0.25  # of the image where no window shows an object


def score_maps(pixels: np.ndarray, path: Path, costs: dict, classes: Sequence[str]) -> list[dict]:
    """A picture of each scale in the file `path` of `WindowCosts`, whose `costs` name the scales."""
    arrays = load_arrays(path)
    return [
        {"scale": row["scale"], **score_map(pixels, arrays[f"scale_{number}"], classes)}
        for number, row in enumerate(costs["by_scale"])
    ]


def score_map(pixels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> dict:
    """The image, bright where windows of `probabilities` [(C + 1) x m x n] show an object; and the surest window.

    The map is stretched over the image: its cells are the windows' centres, up to the frame around the image.
    """
    objects = 1 - probabilities[0]
    label, row, column = np.unravel_index(probabilities[1:].argmax(), probabilities[1:].shape)
    height, width = pixels.shape[:2]
    glow = np.asarray(Image.fromarray(objects.astype(np.float32)).resize((width, height), Image.Resampling.NEAREST))
    lit = pixels * (DARKEST + (1 - DARKEST) * glow[:, :, None])
    return {
        "uri": jpeg_uri(lit.round().astype(np.uint8), PICTURE), "rows": objects.shape[0], "columns": objects.shape[1],
        "name": classes[label], "score": float(probabilities[1 + label, row, column]),
    }
