"""Masks of single objects from a mask of instances.

Shape shorthand: M objects.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from pipeline.boxes import iou
from pipeline.datasets.masks import VOID
from pipeline.datasets.records import ImageRecord, ImageTable

SAME = 0.5  # IoU of an object's box and its mask's extent from which on they belong together


def object_values(instances: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The value of each object with `boxes` [M x 4] in the mask `instances`, uint8 [height x width]; 0: it has none.

    A mask belongs to the object whose box is nearest its extent. Numbers alone would not do: a split may lack some objects.
    """
    values = np.array([value for value in np.unique(instances) if value not in (0, VOID)], np.uint8)
    if not len(values) or not len(boxes):
        return np.zeros(len(boxes), np.uint8)
    extents = np.array([_extent(instances == value) for value in values], np.float32)
    overlaps = iou(np.asarray(boxes, np.float32), extents)
    chosen = np.zeros(len(boxes), np.uint8)
    while overlaps.max() >= SAME:
        number, place = np.unravel_index(overlaps.argmax(), overlaps.shape)
        chosen[number] = values[place]
        overlaps[number], overlaps[:, place] = -1, -1
    return chosen


def object_masks(instances: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The masks of the objects with `boxes` [M x 4]: bool [M x height x width]; that of an object without one is empty.

    NOTE: void, a border of VOC's masks that belongs to no class, counts as background.
    """
    values = object_values(instances, boxes)
    return (instances[None] == values[:, None, None]) & (values > 0)[:, None, None]


def with_masks(images: Iterable[ImageRecord], drawn: Iterable[ImageRecord]) -> ImageTable:
    """The `images` with the masks of instances of the images `drawn` that have the same ids."""
    masks = {image.id: image.instance_mask for image in drawn}
    return ImageTable(replace(image, instance_mask=masks.get(image.id)) for image in images)


def masked_images(images: Sequence[ImageRecord], read: Callable[[ImageRecord], np.ndarray]) -> list[int]:
    """The numbers of the images in which each object that counts has a mask; `read` gives an image's mask of instances."""
    return [
        number for number, image in enumerate(images)
        if image.instance_mask and object_values(read(image), image.boxes[image.counted]).all()
    ]


def _extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
