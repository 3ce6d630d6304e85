"""Poses as files: those of a split's objects after each stage, as npz."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.files.npz import load_arrays
from pipeline.files.writing import write_arrays

NAMES = ("counts", "boxes", "joints")


@dataclass(frozen=True, eq=False)
class Poses:
    """Of I images: `counts` int64 [I] of objects, their `boxes` [N x 4] and `joints` [S x N x k x 2] in pixels, float64.

    Both are NaN for an object that a detector did not find.
    """

    counts: np.ndarray
    boxes: np.ndarray
    joints: np.ndarray

    def save(self, path: Path) -> None:
        write_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> "Poses":
        arrays = load_arrays(path, NAMES)
        return cls(*(arrays[name] for name in NAMES))

    @classmethod
    def join(cls, parts: list["Poses"]) -> "Poses":
        return cls(
            np.concatenate([part.counts for part in parts]), np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.joints for part in parts], axis=1),
        )
