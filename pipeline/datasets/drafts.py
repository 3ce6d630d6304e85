"""The images of a split while it is read: labels wait for the class names, and an image's size for its file."""

from array import array
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.datasets.keypoints import Skeleton
from pipeline.datasets.records import NO_CLASS, UPRIGHT, ImageRecord, ImageTable, MaskFile

# Extent of an image that could not be read: no float32 box is outside it.
UNKNOWN_EXTENT = float(np.finfo(np.float32).max)


class Draft:
    """An image whose labels are not known before all class names are; its size is unknown where it cannot be decoded."""

    __slots__ = ("_drafts", "_number")

    def __init__(self, drafts: "Drafts", number: int):
        self._drafts, self._number = drafts, number

    @property
    def number(self) -> int:
        """Its place in the split."""
        return self._number

    @property
    def id(self) -> str:
        return self._drafts.names[3 * self._number]

    @property
    def has_size(self) -> bool:
        return self._drafts.sizes[2 * self._number] > 0

    @property
    def height(self) -> float:
        return self._drafts.sizes[2 * self._number] or UNKNOWN_EXTENT

    @property
    def width(self) -> float:
        return self._drafts.sizes[2 * self._number + 1] or UNKNOWN_EXTENT

    @property
    def mark(self) -> int:
        """The mark of rotation of its file (EXIF's orientation)."""
        return self._drafts.marks.get(self._number, UPRIGHT)

    @property
    def is_upright(self) -> bool:
        """Whether it is read turned by its mark."""
        return self._drafts.upright

    def set_size(self, height: int, width: int) -> None:
        self._drafts.sizes[2 * self._number:2 * self._number + 2] = array("q", (height, width))

    def add(
        self, box: np.ndarray, name: str, difficult: bool, ignored: bool = False, keypoints: np.ndarray | None = None
    ) -> None:
        """Adds an object; `keypoints` [k x 3] if it has any."""
        if keypoints is not None:
            self._drafts.keypoints[self._drafts.num_objects] = keypoints
        self._drafts.add_object(self._number, box, name, difficult, ignored)

    def set_mask(self, field: str, mask: MaskFile) -> None:
        """Sets the `field` of the record, one of `MASKS`."""
        self._drafts.masks.setdefault(self._number, {})[field] = mask


class Drafts:
    """The images of a split and their objects while they are read, in columns: objects need not come image by image.

    With `upright`, images that have a mark of rotation are to be read turned by it.
    """

    def __init__(self, upright: bool = False):
        self.upright = upright
        self.marks: dict[int, int] = {}  # EXIF's orientation of the images that have one
        self.names: list[str] = []  # id, path and digest of each image
        self.sizes = array("q")  # height and width of each image, 0 where unknown
        self._classes: dict[str, int] = {}  # the number of each class, by first appearance
        self._image, self._class, self._boxes, self._difficult = array("i"), array("i"), array("f"), bytearray()
        self._ignored = bytearray()
        self.skeleton: Skeleton | None = None  # the names of the objects' keypoints
        self.keypoints: dict[int, np.ndarray] = {}  # by the object's number, in the order in which they came
        self.masks: dict[int, dict[str, MaskFile]] = {}  # by the image's number

    def __len__(self) -> int:
        return len(self.sizes) // 2

    @property
    def num_objects(self) -> int:
        return len(self._image)

    @property
    def classes(self) -> list[str]:
        """The sorted names of the objects; regions to ignore are none."""
        of_objects = set(np.array(self._class, np.int64)[np.array(self._ignored, bool) == 0].tolist())
        return sorted(name for name, number in self._classes.items() if number in of_objects)

    def images(self) -> Iterator[Draft]:
        return (Draft(self, number) for number in range(len(self)))

    def add_image(self, id: str, path: str = "", digest: str = "") -> Draft:
        self.names += (id, path, digest)
        self.sizes.extend((0, 0))
        return Draft(self, len(self) - 1)

    def add_object(self, number: int, box: np.ndarray, name: str, difficult: bool, ignored: bool) -> None:
        self._image.append(number)
        self._class.append(self._classes.setdefault(name, len(self._classes)))
        self._boxes.extend(box.tolist())
        self._difficult.append(difficult)
        self._ignored.append(ignored)

    def to_table(self, classes: Sequence[str]) -> ImageTable:
        """The records of the images; labels index `classes`. An image's objects stay in the order in which they came.

        Only regions to ignore may have other names: they are ignored whatever their class.
        """
        number = {name: label for label, name in enumerate(classes)}
        labels = np.array([number.get(name, NO_CLASS) for name in self._classes], np.int64)[np.array(self._class, np.int64)]
        boxes, difficult = np.array(self._boxes, np.float32).reshape(-1, 4), np.array(self._difficult, bool)
        ignored = np.array(self._ignored, bool)
        order = np.argsort(np.array(self._image, np.int64), kind="stable")
        ends = np.cumsum(np.bincount(np.array(self._image, np.int64), minlength=len(self)))
        table, start = ImageTable(), 0
        for image, end in enumerate(ends.tolist()):
            chosen, (height, width) = order[start:end], self.sizes[2 * image:2 * image + 2]
            objects = boxes[chosen], labels[chosen], difficult[chosen], ignored[chosen]
            keypoints, masks = self._keypoints_of(chosen), self.masks.get(image, {})
            id, path, digest = self.names[3 * image:3 * image + 3]
            orientation = self.marks.get(image, UPRIGHT) if self.upright else UPRIGHT
            table.add(ImageRecord(
                id, path, digest, width, height, *objects, orientation=orientation, keypoints=keypoints,
                class_mask=masks.get("class_mask"), instance_mask=masks.get("instance_mask"),
            ))
            start = end
        return table

    def _keypoints_of(self, objects: np.ndarray) -> np.ndarray | None:
        """The keypoints [n x k x 3] of these objects; None where objects have none."""
        if self.skeleton is None:
            return None
        keypoints = np.zeros((len(objects), len(self.skeleton.names), 3), np.float32)
        for row, number in enumerate(objects.tolist()):
            if number in self.keypoints:
                keypoints[row] = self.keypoints[number]
        return keypoints
