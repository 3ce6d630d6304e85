"""Boxes at the edges of their images: inside, cut to the image, or bad.

A box that passes an edge by at most a pixel is cut and told: numbers are rounded, and some files count pixels from 0 where VOC
counts from 1. Further outside it is a bad object, or is cut, as the user wants it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.datasets.faults import Faults, ObjectFaults, Remarks

ADVICE = "correct it, or leave such boxes out with --on-bad-annotation drop"
CUT_ADVICE = "correct it, cut such boxes to the image with --on-bad-annotation clip, or leave them out with drop"
PIXEL = 1.0
# Pixels. What float32 rounds in an image of 10,000 pixels: the box is that of the file.
NEGLIGIBLE = 1e-3

BY_A_PIXEL = "boxes that pass the edge of their image by at most a pixel"


@dataclass(frozen=True)
class Extent:
    """The image of a box: its size, and in words where a box of the file has to lie."""

    height: float
    width: float
    limits: str


class Edges:
    """Fits the boxes of a split to their images. `first_pixel` is what VOC's files count from; None in other layouts."""

    def __init__(self, faults: Faults, clip: bool, first_pixel: int | None = None):
        self._faults, self._clip, self._first_pixel = faults, clip, first_pixel
        self._cut = Remarks()
        self._passes_first = self._reaches_last = False  # whether a box begins before the first pixel, or ends at the last one

    def fit(self, here: ObjectFaults, corners: Sequence[float] | np.ndarray, extent: Extent, text: str) -> np.ndarray | None:
        """The float32 box [4] of corners in our convention, inside its image; None if it is bad, which `here` is told.

        `text` quotes the box as the file has it.
        """
        with np.errstate(over="ignore"):
            inside = _inside(corners, extent).astype(np.float32)
        if problem := self._problem(corners, inside, extent):
            kind, fault, advice = problem
            here.bad_object(kind, f"{text}, {fault}", advice)
        if here.any:
            return None
        x1, y1, x2, y2 = corners
        self._reaches_last |= bool(x2 >= extent.width or y2 >= extent.height)
        if (excess := _excess(corners, extent)) > PIXEL + NEGLIGIBLE:
            self._add("boxes that pass the edge of their image by more than a pixel", here, text, extent)
        elif excess > NEGLIGIBLE:
            self._passes_first |= bool(min(x1, y1) < -NEGLIGIBLE)
            self._add(BY_A_PIXEL, here, text, extent)
        return inside

    def _problem(self, corners, inside: np.ndarray, extent: Extent) -> tuple[str, str, str] | None:
        """What is wrong with a box: the kind of fault, of this box, and what to do."""
        if not np.isfinite(corners).all():
            return "boxes with a coordinate that is not a number", "where a coordinate is not a number", ADVICE
        x1, y1, x2, y2 = corners
        if x1 >= x2 or y1 >= y2:
            return "boxes that are empty or reversed", "which is empty or reversed", ADVICE
        if (inside[:2] >= inside[2:]).any():
            return "boxes that are not in their image", f"which has no part inside {extent.limits}", ADVICE
        if not self._clip and _excess(corners, extent) > PIXEL + NEGLIGIBLE:
            return "boxes that are not inside their image", f"which is not inside {extent.limits}", CUT_ADVICE
        return None

    def _add(self, kind: str, here: ObjectFaults, text: str, extent: Extent) -> None:
        self._cut.add(kind, f"{here.where} {text}, which is not inside {extent.limits}", "")

    def tell(self) -> None:
        """Notes the boxes that were cut; to be called when all are read."""
        for remark in self._cut.all:
            by_a_pixel = remark.kind == BY_A_PIXEL
            advice = "cut to the image" + (self._hint() if by_a_pixel else ", as --on-bad-annotation clip asks")
            self._faults.notes.adopt(replace(remark, advice=advice))

    def _hint(self) -> str:
        if self._first_pixel == 0:
            return "; if the files count pixels from 1, as VOC's do, leave out --voc-first-pixel 0"
        if self._first_pixel is None or not self._passes_first:
            return ""
        if self._reaches_last:
            return "; if the files count pixels from 0, and not from 1 as VOC's do, give --voc-first-pixel 0"
        return "; the files look as if they count pixels from 0, and not from 1 as VOC's do: then give --voc-first-pixel 0"


def _inside(corners: Sequence[float] | np.ndarray, extent: Extent) -> np.ndarray:
    """The part of a box that is inside its image."""
    x1, y1, x2, y2 = corners
    return np.array([max(x1, 0), max(y1, 0), min(x2, extent.width), min(y2, extent.height)])


def _excess(corners: Sequence[float] | np.ndarray, extent: Extent) -> float:
    """How far a box passes the edge of its image, in pixels."""
    x1, y1, x2, y2 = corners
    return max(-x1, -y1, x2 - extent.width, y2 - extent.height)
