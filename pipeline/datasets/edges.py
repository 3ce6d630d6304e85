"""Boxes at the edges of their images: inside, cut to the image, or bad.

A box that passes an edge by at most a pixel is cut and told: numbers are rounded, and some files count pixels from 0 where VOC
counts from 1. Further outside it is a bad object, or is cut, as the user wants it.
"""

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pipeline.datasets.faults import Faults, ObjectFaults, Remarks

ADVICE = "correct it, or leave such boxes out with --on-bad-annotation drop"
CUT_ADVICE = "correct it, cut such boxes to the image with --on-bad-annotation clip, or leave them out with drop"
PIXEL = 1.0
# Pixels. What float32 rounds in an image of 10,000 pixels: the box is that of the file.
NEGLIGIBLE = 1e-3

BY_A_PIXEL = "boxes that pass the edge of their image by at most a pixel"
FURTHER = "boxes that pass the edge of their image by more than a pixel"


class Extent(NamedTuple):
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

    def fit(self, here: ObjectFaults, corners: Sequence[float], extent: Extent, quote: Callable[[], str]) -> np.ndarray | None:
        """The float32 box [4] of corners in our convention, inside its image; None if it is bad, which `here` is told.

        `quote` gives the box as the file has it, for a message.
        """
        x1, y1, x2, y2 = corners
        height, width, limits = extent
        excess = max(-x1, -y1, x2 - width, y2 - height)
        inside = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        if not all(map(math.isfinite, corners)):
            kind, fault = "boxes with a coordinate that is not a number", "where a coordinate is not a number"
            here.bad_object(kind, f"{quote()}, {fault}", ADVICE)
        elif x1 >= x2 or y1 >= y2:
            here.bad_object("boxes that are empty or reversed", f"{quote()}, which is empty or reversed", ADVICE)
        elif not _has_area(inside):
            here.bad_object("boxes that are not in their image", f"{quote()}, which has no part inside {limits}", ADVICE)
        elif excess > PIXEL + NEGLIGIBLE and not self._clip:
            here.bad_object("boxes that are not inside their image", f"{quote()}, which is not inside {limits}", CUT_ADVICE)
        if here.any:
            return None
        self._reaches_last |= x2 >= width or y2 >= height
        if excess > NEGLIGIBLE:
            self._passes_first |= excess <= PIXEL + NEGLIGIBLE and min(x1, y1) < -NEGLIGIBLE
            kind = BY_A_PIXEL if excess <= PIXEL + NEGLIGIBLE else FURTHER
            self._cut.add(kind, f"{here.where} {quote()}, which is not inside {limits}", "")
        return np.array(inside, np.float32)

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


def _has_area(box: Sequence[float]) -> bool:
    """Whether a box has an area, in float32 too."""
    x1, y1, x2, y2 = box
    if x1 >= x2 or y1 >= y2:
        return False
    x1, y1, x2, y2 = array("f", box)
    return x1 < x2 and y1 < y2
