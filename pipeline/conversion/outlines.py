"""Outlines of objects, for COCO's files, from the masks of VOC's layout.

COCO's files have an outline for each object, VOC's a mask of classes, and one of objects for some images. Each pixel of a class
goes to an object of the class:

1. An object that the mask of objects numbers has its pixels there.
2. The other pixels of a class belong to the objects of the class whose boxes they are in; if several boxes share a pixel, to
   each of them. So the classes stay as they are, and such a pixel is void in the mask of objects that is drawn again.
3. A pixel outside of all boxes of its class belongs to the nearest of them.

Shape shorthand: M objects, H x W pixels.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_masks

from pipeline.datasets.instances import object_masks
from pipeline.datasets.label_names import BACKGROUND, BACKGROUND_NAME
from pipeline.datasets.mask_labels import FILE as MASK_NAMES
from pipeline.datasets.mask_labels import parse_names
from pipeline.datasets.masks import VOID, decode_mask
from pipeline.datasets.records import ImageRecord, MaskFile
from pipeline.datasets.whole import Dataset
from pipeline.files.reading import read_regular
from pipeline.images.reading import read_content

SHARED = "pixels are in the boxes of several objects of their class: they belong to the outline of each"
NAMELESS = -2  # the label of values that name no class; regions to ignore may have NO_CLASS
WITHOUT_OBJECT = "pixels of classes that have no object in their image"


@dataclass(frozen=True)
class Outlines:
    """The outlines of an image's objects, and of its void; `areas` are the objects' pixels."""

    objects: list[dict]
    areas: list[int]
    void: dict | None


class OutlineMaker:
    """Makes outlines from the masks of `dataset`; `lost` counts what they cannot say, and `noted` what they say vaguely.

    With `chosen`, the data set's classes are the user's choice, and do not number the masks' values.
    """

    def __init__(self, dataset: Dataset, *, lost: Counter, noted: Counter, chosen: bool):
        self.root, self.lost, self.noted = dataset.root, lost, noted
        path, classes = Path(dataset.root, MASK_NAMES), dataset.classes
        listed = parse_names(path, read_regular(path, "mend that")) if path.is_file() else None
        names = listed or (() if chosen else (BACKGROUND_NAME, *classes))
        self._labels = {value: classes.index(name) for value, name in enumerate(names) if name in classes}
        self.is_useful = any(image.instance_mask or (image.class_mask and names) for image in dataset.images().values())

    def make(self, image: ImageRecord) -> Outlines:
        """The outlines of the objects of `image`. Without masks all of its pixels are void."""
        size = image.height, image.width
        classes, instances = (self._read(mask, size) for mask in (image.class_mask, image.instance_mask))
        regions = np.zeros((len(image.boxes), *size), bool) if instances is None else object_masks(instances, image.boxes)
        if classes is not None and self._labels:
            self._add_classes(regions, classes, image)
        seen = instances if classes is None else classes
        void = np.ones(size, bool) if seen is None else seen == VOID
        return Outlines(list(map(_runs, regions)), regions.sum(axis=(1, 2)).tolist(), _runs(void) if void.any() else None)

    def _read(self, mask: MaskFile | None, size: tuple[int, int]) -> np.ndarray | None:
        if mask is None:
            return None
        path = self.root / mask.path
        return decode_mask(path, read_content(path, mask.digest), size)

    def _add_classes(self, regions: np.ndarray, classes: np.ndarray, image: ImageRecord) -> None:
        """Adds to the `regions` [M x H x W], in place, the pixels of the class mask that are in none of them."""
        taken = regions.any(axis=0)
        numbered = np.array([region.any() for region in regions], bool)
        for value in np.unique(classes).tolist():
            y, x = np.nonzero((classes == value) & ~taken)
            if value in (BACKGROUND, VOID) or not len(y):
                continue
            objects = np.flatnonzero(image.labels == self._labels.get(value, NAMELESS))
            if not len(objects):
                self.lost[WITHOUT_OBJECT] += len(y)
                continue
            if not numbered[objects].all():
                objects = objects[~numbered[objects]]
            nearest = np.min([_distance(image.boxes[place], y, x) for place in objects], axis=0)
            owners = np.zeros(len(y), int)
            for place in objects:
                inside = _distance(image.boxes[place], y, x) == nearest
                regions[place, y[inside], x[inside]] = True
                owners += inside
            if shared := int((owners > 1).sum()):
                self.noted[SHARED] += shared


def _distance(box: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """How far the centres of pixels are from a box; 0 in it."""
    x1, y1, x2, y2 = box.astype(np.float64)
    across, down = (np.maximum(0, np.maximum(low - (p + 0.5), p + 0.5 - high)) for low, high, p in ((x1, x2, x), (y1, y2, y)))
    return np.hypot(across, down)


def _runs(mask: np.ndarray) -> dict:
    """A mask bool [H x W] as COCO's packed runs, which lose nothing."""
    runs = coco_masks.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": runs["counts"].decode("ascii")}
