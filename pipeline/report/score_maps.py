"""Score maps of sliding windows, drawn over their image.

Shape shorthand: C classes, m x n positions of windows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.files.npz import load_arrays
from pipeline.networks.whole_images import Scaling
from pipeline.report.embedding import jpeg_uri
from pipeline.sliding_window.layout import WindowLayout, scalings

PICTURE = 360  # pixels of the longer side
DARKEST = 0.25  # of the image where no window shows an object


def score_maps(pixels: np.ndarray, path: Path, costs: dict, classes: Sequence[str]) -> list[dict]:
    """A picture of each scale in the file `path` of `WindowCosts`, whose `costs` name scales and windows."""
    arrays, layout = load_arrays(path), WindowLayout(costs["window_side"], costs["window_step"])
    scales = tuple(row["scale"] for row in costs["by_scale"])
    how = scalings(pixels.shape[0], pixels.shape[1], layout, scales)
    return [
        {"scale": scale, **score_map(pixels, arrays[f"scale_{number}"], layout, scaling, classes)}
        for number, (scale, scaling) in enumerate(zip(scales, how, strict=True))
    ]


def score_map(
    pixels: np.ndarray, probabilities: np.ndarray, layout: WindowLayout, scaling: Scaling, classes: Sequence[str]
) -> dict:
    """The image, bright where windows of `probabilities` [(C + 1) x m x n] show an object; and the surest window.

    Each pixel is as bright as the window whose centre is nearest to it.
    """
    objects = 1 - probabilities[0]
    label, row, column = map(int, np.unravel_index(probabilities[1:].argmax(), probabilities[1:].shape))
    rows, columns = (
        _nearest(length, factor, layout, count)
        for length, factor, count in zip(pixels.shape[:2], scaling.factors[::-1], objects.shape, strict=True)
    )
    lit = pixels * (DARKEST + (1 - DARKEST) * objects[rows][:, columns, None])
    return {
        "uri": jpeg_uri(lit.round().astype(np.uint8), PICTURE), "rows": objects.shape[0], "columns": objects.shape[1],
        "name": classes[int(label)], "score": float(probabilities[1 + label, row, column]),
    }


def _nearest(length: int, factor: float, layout: WindowLayout, count: int) -> np.ndarray:
    """For each of `length` pixels in one direction the window, of `count`, whose centre is nearest."""
    framed = (np.arange(length) + 0.5) * factor + layout.frame
    return np.clip(np.round((framed - layout.side / 2) / layout.stride), 0, count - 1).astype(int)
