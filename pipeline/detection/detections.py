"""What a detector returns: the detections of a split, and those of one image.

Shape shorthand: K detections of a split, N of one image, best first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.errors import PipelineError
from pipeline.files.npz import load_columns
from pipeline.files.writing import write_arrays

# Of each array in a file: the kind of its type, and its shape after the first side.
COLUMNS = {
    "image_ids": ("U", ()), "classes": ("U", ()), "image_index": ("i", ()), "class_index": ("i", ()), "score": ("f", ()),
    "boxes": ("f", (4,)),
}


@dataclass(frozen=True, eq=False)
class Detections:
    """All detections in the images of a split, by image, then class, then falling score; equal scores keep their order.

    `image_index` int32 [K] and `class_index` int32 [K] index `image_ids` and `classes`; `score` float32 [K] is comparable
    within a class; `boxes` float32 [K x 4] in pixels, 0-based, exclusive x2 and y2. The constructor converts and sorts; it
    raises PipelineError for lengths that differ, an index out of range, a number that is not finite or a repeated name.
    """

    image_ids: tuple[str, ...]
    classes: tuple[str, ...]
    image_index: np.ndarray
    class_index: np.ndarray
    score: np.ndarray
    boxes: np.ndarray

    def __post_init__(self):
        image_index, class_index = np.asarray(self.image_index, np.int32), np.asarray(self.class_index, np.int32)
        score, boxes = np.asarray(self.score, np.float32), np.asarray(self.boxes, np.float32).reshape(-1, 4)
        if not len(image_index) == len(class_index) == len(score) == len(boxes):
            lengths = f"{len(image_index)} images, {len(class_index)} classes, {len(score)} scores, {len(boxes)} boxes"
            raise PipelineError(f"detections: lengths differ ({lengths}); give one of each for every detection")
        for what, index, names in ("image", image_index, self.image_ids), ("class", class_index, self.classes):
            if len(set(names)) < len(names):
                raise PipelineError(f"detections: a name occurs twice among the {len(names)} {what} names; make them differ")
            if len(index) and not 0 <= index.min() <= index.max() < len(names):
                fault = f"{what} index {index.min()} to {index.max()}"
                raise PipelineError(f"detections: {fault}, but there are {len(names)} names; count from 0")
        broken = np.flatnonzero(~(np.isfinite(score) & np.isfinite(boxes).all(axis=1)))
        if len(broken):
            where = f"image {self.image_ids[image_index[broken[0]]]}, class {self.classes[class_index[broken[0]]]}"
            fault = f"score {score[broken[0]]}, box {boxes[broken[0]].tolist()}"
            raise PipelineError(f"detections: {where}: {fault}: not finite; check the detector's weights")
        order = np.lexsort((-score, class_index, image_index))
        values = {"image_ids": tuple(self.image_ids), "classes": tuple(self.classes), "image_index": image_index[order],
                  "class_index": class_index[order], "score": score[order], "boxes": boxes[order]}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.score)

    def save(self, path: Path) -> None:
        """Writes the fields to the .npz file `path`; equal detections give equal bytes."""
        names = {"image_ids": np.array(self.image_ids, np.str_), "classes": np.array(self.classes, np.str_)}
        write_arrays(path, {**vars(self), **names})

    @classmethod
    def load(cls, path: Path) -> "Detections":
        """The detections that `save` wrote to `path`. Raises PipelineError for any other file."""
        arrays = load_columns(path, COLUMNS)
        image_ids, classes = (tuple(arrays.pop(name).tolist()) for name in ("image_ids", "classes"))
        try:
            return cls(image_ids, classes, **arrays)
        except PipelineError as error:
            raise PipelineError(f"{path}: {error}") from error


def join_detections(parts: Sequence[Detections]) -> Detections:
    """The detections of several sets of images, which have the same classes, as those of one set."""
    starts = np.cumsum([0, *(len(part.image_ids) for part in parts)])
    index = [part.image_index + start for part, start in zip(parts, starts)]
    columns = zip(*((part.class_index, part.score, part.boxes) for part in parts))
    ids = sum((part.image_ids for part in parts), ())
    return Detections(ids, parts[0].classes, np.concatenate(index), *map(np.concatenate, columns))


class LeftOut(NamedTuple):
    """How many proposals, candidates (before suppression) and detections (after it) the limits of one image left out."""

    proposals: int = 0
    candidates: int = 0
    detections: int = 0


NOTHING_LEFT_OUT = LeftOut()
# The setting that limits each of them.
LIMITED_BY = {"proposals": "max_proposals", "candidates": "max_per_image", "detections": "max_detections"}


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """What was found in one image, best score first.

    `boxes` float32 [N x 4] (x1, y1, x2, y2) in pixels of the upright image, 0-based, exclusive x2 and y2; `scores` float32 [N]:
    probabilities of Fast and Faster R-CNN, decision values of SVMs, which are comparable within a class; `labels` int32 [N] index
    `classes`. `left_out` counts what the detector's limits left out. `masks` uint8 [N x m x m], of Mask R-CNN: 255 times the
    probability of each of m x m cells of the box (`pipeline.detection.masks`).
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    left_out: LeftOut = NOTHING_LEFT_OUT
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """The class name of each detection: N of them."""
        return [self.classes[label] for label in self.labels]

    def reach(self, lowest: np.ndarray) -> np.ndarray:
        """Which detections reach the lowest score [C] of their class: bool [N]."""
        return self.scores >= lowest[self.labels]

    @classmethod
    def of(cls, detections: Detections, number: int, masks: np.ndarray | None = None) -> "ImageDetections":
        """Those of image `number` among the detections of many, and among the `masks` of all of these."""
        rows = np.arange(*np.searchsorted(detections.image_index, (number, number + 1)))
        rows = rows[np.argsort(-detections.score[rows], kind="stable")]
        columns = detections.boxes[rows], detections.score[rows], detections.class_index[rows]
        return cls(*columns, detections.classes, masks=None if masks is None else masks[rows])
