"""The objects of a split whose poses are trained on and judged: those that count and have a labelled joint."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.keypoints import Skeleton
from pipeline.datasets.records import ImageRecord, Split
from pipeline.errors import PipelineError


@dataclass(frozen=True)
class PosedObjects:
    """N objects: `image` int64 [N], its number in the split; `boxes` float64 [N x 4]; `joints` float64 [N x k x 2] in pixels.

    `labelled` bool [N x k] says which joints are known. `without` objects have none and are not among them; `with_one` have one.
    """

    image: np.ndarray
    boxes: np.ndarray
    joints: np.ndarray
    labelled: np.ndarray
    without: int
    with_one: int

    def __len__(self) -> int:
        return len(self.image)


def skeleton_of(split: Split) -> Skeleton:
    """The keypoints of a split by name. Raises PipelineError where it has none."""
    if split.skeleton is None:
        raise PipelineError(f"split '{split.name}' has no keypoints; add keypoints.json to the folder (docs/pose.md), or leave "
                            "out the chain pose")
    return split.skeleton


def posed_objects(images: Sequence[ImageRecord], joints: int) -> PosedObjects:
    """The objects of `images` that have one of `joints` keypoints."""
    numbers, boxes, keypoints = [np.zeros(0, np.int64)], [np.zeros((0, 4))], [np.zeros((0, joints, 3))]
    without = 0
    for number, record in enumerate(images):
        counted = record.counted
        if record.keypoints is None:
            without += int(counted.sum())
            continue
        has_pose = counted & (record.keypoints[..., 2] > 0).any(axis=1)
        without += int((counted & ~has_pose).sum())
        numbers.append(np.full(has_pose.sum(), number))
        boxes.append(record.boxes[has_pose].astype(np.float64))
        keypoints.append(record.keypoints[has_pose].astype(np.float64))
    every = np.concatenate(keypoints)
    labelled = every[..., 2] > 0
    with_one = int((labelled.sum(axis=1) == 1).sum())
    return PosedObjects(np.concatenate(numbers), np.concatenate(boxes), every[..., :2], labelled, without, with_one)


def classes_with_keypoints(split: Split) -> list[str]:
    """The names of the classes of which an object has a labelled keypoint, in the split's order."""
    labels: set[int] = set()
    for record in split.images:
        if record.keypoints is not None:
            has_pose = record.counted & (record.keypoints[..., 2] > 0).any(axis=1)
            labels |= set(record.labels[has_pose].tolist())
    return [split.classes[label] for label in sorted(labels)]
