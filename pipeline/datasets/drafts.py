"""The images of a split while it is read: labels wait for the class names, and an image's size for its file."""

from array import array
from collections.abc import Sequence

import numpy as np

from pipeline.datasets.records import NO_CLASS, UPRIGHT, ImageRecord, ImageTable

# Extent of an image that could not be read: no float32 box is outside it.
UNKNOWN_EXTENT = float(np.finfo(np.float32).max)


class Draft:
    """An image whose labels are not known before all class names are; its size is unknown where it cannot be decoded."""

    __slots__ = ("_drafts", "_number")

    def __init__(self, drafts: "Drafts", number: int):
        self._drafts, self._number = drafts, number

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

    def add(self, box: np.ndarray, name: str, difficult: bool, ignored: bool = False) -> None:
        self._drafts.add_object(self._number, box, name, difficult, ignored)


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

    def __len__(self) -> int:
        return len(self.sizes) // 2

    @property
    def classes(self) -> list[str]:
        """The sorted names of the objects; regions to ignore are none."""
        of_objects = set(np.array(self._class, np.int64)[np.array(self._ignored, bool) == 0].tolist())
        return sorted(name for name, number in self._classes.items() if number in of_objects)

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
            id, path, digest = self.names[3 * image:3 * image + 3]
            orientation = self.marks.get(image, UPRIGHT) if self.upright else UPRIGHT
            table.add(ImageRecord(id, path, digest, width, height, *objects, orientation=orientation))
            start = end
        return table
