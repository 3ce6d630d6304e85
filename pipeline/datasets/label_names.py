"""Names of the values in class masks.

A label is a class of the segmentation: 0 to K - 1. The mask files of a data set may have other values: with `--classes cat`, the
files still hold VOC's 21 values, and the labels are background and cat.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BACKGROUND = 0
BACKGROUND_NAME = "background"
# What tools call it.
BACKGROUND_NAMES = {BACKGROUND_NAME, "_background_", "__background__", "bg"}
UNKNOWN = -1
NUM_VALUES = 256  # of a byte


@dataclass(frozen=True)
class LabelNames:
    """`names` of the labels 0 to K - 1; `values` are the labels of the values 0, 1, ... in the mask files.

    Without `values`, each value is its own label.
    """

    names: tuple[str, ...]
    values: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_background(self) -> bool:
        """Whether label 0 is the background, and no class of things."""
        return bool(self.names) and is_background(self.names[BACKGROUND])

    def table(self) -> np.ndarray:
        """The label of each value of a file, int16 [256]; UNKNOWN where a value has none."""
        table = np.full(NUM_VALUES, UNKNOWN, np.int16)
        values = self.values or range(len(self.names))
        table[:len(values)] = values
        return table

    def to_json(self) -> dict:
        return {"names": list(self.names), "values": list(self.values)}

    @classmethod
    def from_json(cls, data: dict) -> "LabelNames":
        return cls(tuple(data["names"]), tuple(data["values"]))


def is_background(name: str) -> bool:
    return name.strip().lower() in BACKGROUND_NAMES


def of_classes(classes: Sequence[str]) -> LabelNames:
    """The labels of masks that number `classes` from 1 on."""
    return LabelNames((BACKGROUND_NAME, *classes))


def chosen_labels(listed: Sequence[str], classes: Sequence[str]) -> LabelNames:
    """The labels where only `classes` are wanted, of masks whose values have the names `listed`: all others are background."""
    number = {name: label for label, name in enumerate(classes, 1)}
    return LabelNames((BACKGROUND_NAME, *classes), tuple(number.get(name, BACKGROUND) for name in listed))
