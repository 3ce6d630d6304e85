"""The report's section of semantic segmentation: label maps beside the truth, confusion matrices, kernels of learned upsampling.

Shape shorthand: N images, K classes.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import nn

from pipeline.datasets.masks import palette
from pipeline.report.embedding import png_uri
from pipeline.segmentation.geometry import bilinear_kernel
from pipeline.segmentation.upsampling import Upsampling

LONGEST_SIDE = 240  # pixels of a label map on the page
MOST_CLASSES = 30  # of a confusion matrix that is shown as a table
KERNELS, CELL = 24, 6  # kernels of a layer that are shown; pixels of the page for each value


def choose_images(histograms: np.ndarray, number: int) -> list[int]:
    """At most `number` of the N images, evenly spread from the best pixel accuracy to the worst; none of void alone."""
    totals = histograms.sum(axis=(1, 2))
    right = np.trace(histograms, axis1=1, axis2=2) / np.maximum(totals, 1)
    order = np.flatnonzero(totals > 0)
    order = order[np.argsort(-right[order], kind="stable")]
    return order[np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int)].tolist()


def map_uri(labels: np.ndarray) -> str:
    """A label map uint8 [H x W] in the palette's colours, shrunk to the page's size without mixing labels."""
    image = Image.fromarray(labels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.NEAREST)
    return png_uri(palette()[np.asarray(image)])


def colour_of(label: int) -> str:
    """The palette's colour of a label, as the page writes it."""
    return "#{:02x}{:02x}{:02x}".format(*palette()[label].tolist())


def confusion_rows(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> list[dict]:
    """The rows of a confusion matrix [K x K] as shares of the true pixels, without classes that are never true."""
    matrix = np.asarray(confusion, np.int64)
    totals = matrix.sum(axis=1)
    return [{"name": names[row], "pixels": int(totals[row]), "shares": (matrix[row] / totals[row]).tolist()}
            for row in np.flatnonzero(totals).tolist()]


def largest_confusions(confusion: Sequence[Sequence[int]], names: Sequence[str], number: int = 12) -> list[dict]:
    """The pairs of classes that are confused most, by the number of pixels."""
    matrix = np.asarray(confusion, np.int64).copy()
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:number]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    return [{"true": names[row], "predicted": names[column], "pixels": int(matrix[row, column])}
            for row, column in pairs if matrix[row, column]]


def last_kernels(model: nn.Module) -> tuple[np.ndarray, bool] | None:
    """The kernels [n x k x k] of the last transposed convolution of `model`, and whether they are learned; None without any.

    All fixed kernels are the same, so there is one of them.
    """
    upsamplings = [module for module in model.modules() if isinstance(module, Upsampling)]
    learned = [upsampling for upsampling in upsamplings if upsampling.learned]
    if learned:
        return learned[-1].weight.detach().float().numpy()[:, 0], True
    fixed = [upsampling for upsampling in upsamplings if upsampling.refinement.factor > 1]
    return (bilinear_kernel(fixed[-1].refinement.kernel)[None], False) if fixed else None


def kernels_uri(kernels: np.ndarray) -> str:
    """Kernels [n x k x k] side by side: white is the largest absolute value of all, black its negative, grey is 0."""
    kernels = np.asarray(kernels, np.float64)[:KERNELS]
    size, limit = kernels.shape[1], np.abs(kernels).max() or 1.0
    gap = max(1, size // 8)
    row = np.full((size, len(kernels) * (size + gap) - gap), np.nan)
    for number, kernel in enumerate(kernels):
        row[:, number * (size + gap):number * (size + gap) + size] = kernel / limit
    scale = max(1, CELL * 4 // size)
    grey = np.where(np.isnan(row), 255, np.round(127.5 + 127.5 * row)).astype(np.uint8)
    return png_uri(np.repeat(np.repeat(grey, scale, axis=0), scale, axis=1)[..., None].repeat(3, axis=2))
