"""Reading a split strictly, whatever its format: faults are collected, files are the digested ones, boxes lie in their images.

A reader drafts each image, since labels wait for the class names, and an image's size for its file. Files are
identified by their names, relative to the data set's folder, with `/` between folders: 100,000 texts are quicker than paths.
"""

import hashlib
import os
import re
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.datasets.faults import Faults
from pipeline.datasets.records import ImageRecord, ImageTable, Split
from pipeline.errors import DatasetError, PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS, read_regular
from pipeline.images.reading import decode_image
from pipeline.text import shown

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
CORRECT = "correct it"
ADVICE = "correct it, or leave such boxes out with --on-bad-annotation drop"
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

    def set_size(self, height: int, width: int) -> None:
        self._drafts.sizes[2 * self._number:2 * self._number + 2] = array("q", (height, width))

    def add(self, box: np.ndarray, name: str, difficult: bool) -> None:
        self._drafts.add_object(self._number, box, name, difficult)


class Drafts:
    """The images of a split and their objects while they are read, in columns: objects need not come image by image."""

    def __init__(self):
        self.names: list[str] = []  # id, path and digest of each image
        self.sizes = array("q")  # height and width of each image, 0 where unknown
        self._classes: dict[str, int] = {}  # the number of each class, by first appearance
        self._image, self._class, self._boxes, self._difficult = array("i"), array("i"), array("f"), bytearray()

    def __len__(self) -> int:
        return len(self.sizes) // 2

    @property
    def classes(self) -> list[str]:
        """The sorted names of the objects."""
        return sorted(self._classes)

    def add_image(self, id: str, path: str = "", digest: str = "") -> Draft:
        self.names += (id, path, digest)
        self.sizes.extend((0, 0))
        return Draft(self, len(self) - 1)

    def add_object(self, number: int, box: np.ndarray, name: str, difficult: bool) -> None:
        self._image.append(number)
        self._class.append(self._classes.setdefault(name, len(self._classes)))
        self._boxes.extend(box.tolist())
        self._difficult.append(difficult)

    def to_table(self, classes: Sequence[str]) -> ImageTable:
        """The records of the images; labels index `classes`. An image's objects stay in the order in which they came."""
        number = {name: label for label, name in enumerate(classes)}
        labels = np.array([number[name] for name in self._classes], np.int64)[np.array(self._class, np.int64)]
        boxes, difficult = np.array(self._boxes, np.float32).reshape(-1, 4), np.array(self._difficult, bool)
        order = np.argsort(np.array(self._image, np.int64), kind="stable")
        ends = np.cumsum(np.bincount(np.array(self._image, np.int64), minlength=len(self)))
        table, start = ImageTable(), 0
        for image, end in enumerate(ends.tolist()):
            chosen, (height, width) = order[start:end], self.sizes[2 * image:2 * image + 2]
            objects = boxes[chosen], labels[chosen], difficult[chosen]
            id, path, digest = self.names[3 * image:3 * image + 3]
            table.add(ImageRecord(id, path, digest, width, height, *objects))
            start = end
        return table


class Listing:
    """The files below a folder: each folder is listed once, which is quicker than looking for each file."""

    def __init__(self, root: Path):
        self.root = os.path.abspath(root)
        self._folders: dict[str, frozenset[str]] = {}

    def first(self, names: Sequence[str]) -> str:
        """The first of `names` that is a file, or the first name where none is."""
        return self.find(names) or names[0]

    def find(self, names: Sequence[str]) -> str | None:
        """The first of `names` that is a file, or None."""
        for name in names:
            if self.has(name):
                return name
        # A folder that may not be listed, or a file system for which "é" and "e" with an accent are the same.
        return next((name for name in names if os.path.isfile(f"{self.root}/{name}")), None)

    def has(self, name: str) -> bool:
        """Whether `name` is a file."""
        folder, _, file = name.rpartition("/")
        return file in self.files(folder)

    def files(self, folder: str) -> frozenset[str]:
        """The names of the files in a folder; none where it cannot be listed."""
        if folder not in self._folders:
            try:
                with os.scandir(f"{self.root}/{folder}") as entries:
                    self._folders[folder] = frozenset(entry.name for entry in entries if _is_file(entry))
            except (OSError, ValueError):
                self._folders[folder] = frozenset()
        return self._folders[folder]


def _is_file(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def is_plain_name(name: str) -> bool:
    """Whether `name` stays in the folder it is joined to."""
    return re.fullmatch(r"[^/\\\0]+", name) is not None and name not in (".", "..")


def tidied(name: str) -> str | None:
    """A file's name with `/` between folders and without `./`; None where it leads out of the folder it is joined to.

    Windows writes a backslash between folders.
    """
    if is_plain_name(name):  # the usual case, of 100,000 names
        return name
    parts = name.replace("\\", "/").split("/")
    parts = [part for number, part in enumerate(parts) if part != "." and (part or number == 0)]
    return "/".join(parts) if parts and all(map(is_plain_name, parts)) else None


class Folder:
    """The folder of a data set while one of its splits is read: its faults and images so far.

    `digests` are the digests that the caller expects, by the names of the files.
    """

    def __init__(self, root: Path, digests: Mapping[str, str], on_bad_annotation: str, max_megapixels: float = MAX_MEGAPIXELS):
        self.root, self.digests = Path(root).absolute(), digests
        self.faults, self.drafts, self.max_megapixels = Faults(on_bad_annotation), Drafts(), max_megapixels
        self.take_out = "take its image out of the list"  # what to do about an image that cannot be used

    def read(self, name: str, missing: str = "no such file") -> bytes:
        """The content of the file `name`, if it has its digest. Raises PipelineError, saying `missing` of a missing one."""
        path = self.root / name
        content = read_regular(path, f"mend that or {self.take_out}", f"{missing}; add it or {self.take_out}")
        if hashlib.sha256(content).hexdigest() != self.digests.get(name):
            raise PipelineError(f"{path}: changed while it was being indexed; run again")
        return content

    def draft_image(self, id: str, names: Sequence[str], missing: str) -> Draft:
        """The draft of an image without objects; of unknown size where it cannot be decoded.

        Its file is the first of `names` that has a digest, or the first of all.
        """
        name = next((name for name in names if name in self.digests), names[0])
        image = self.drafts.add_image(id, name, self.digests.get(name, ""))
        with self.faults.collected("images that cannot be used"):
            pixels = decode_image(self.root / name, self.read(name, missing), self.max_megapixels)
            image.set_size(*pixels.shape[:2])
        return image


def check_size(where: str, width: float, height: float, image: Draft) -> None:
    """Raises PipelineError, which begins with `where`, when the annotated size is not that of the image file."""
    # Some tools write 0 x 0 for a size that they do not know.
    if image.width != UNKNOWN_EXTENT and min(width, height) > 0 and (width, height) != (image.width, image.height):
        raise PipelineError(
            f"{where} is {_pixels(width)} x {_pixels(height)}, the image is {image.width} x {image.height} as stored; "
            "annotate the image as stored (no EXIF rotation), or correct the size"
        )


def _pixels(length: float) -> str:
    try:
        return f"{length:g}"
    except OverflowError:  # a whole number of hundreds of digits
        return shown(length)


class BadBox(ValueError):
    """What is wrong with a box; `kind` says it of many boxes."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def to_box(corners: Sequence[float] | np.ndarray, height: float, width: float, limits: str, rounding: float = 0) -> np.ndarray:
    """The float32 box [4] of corners in our convention; what is outside the image by at most `rounding` pixels is cut off.

    BadBox says what is wrong with the box; `limits` says in words where it should lie.
    """
    if not np.isfinite(corners).all():
        raise BadBox("boxes with a coordinate that is not a number", "where a coordinate is not a number")
    x1, y1, x2, y2 = corners
    if min(x1, y1) < -rounding or x2 > width + rounding or y2 > height + rounding:
        raise BadBox("boxes that are not inside their image", f"which is not inside {limits}")
    box = np.array([max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)], np.float32)
    if box[0] >= box[2] or box[1] >= box[3]:
        raise BadBox("boxes that are empty or reversed", "which is empty or reversed")
    return box


def make_split(name: str, classes: Sequence[str] | None, folder: Folder, listed_in: Path) -> Split:
    """The split of the images read from `folder`; the sorted names of their objects are its classes where `classes` is None.

    Raises DatasetError with all that is wrong, or when no image has an object; `listed_in` is the file that names them.
    """
    faults, drafts = folder.faults, folder.drafts
    if not faults.errors and not drafts.classes:
        message = f"{listed_in}: none of its {len(drafts)} image(s) has an object"
        faults.error("splits without an object", message, "annotate some")
    if faults.errors:
        problems = faults.errors.all
        count = sum(problem.count for problem in problems)
        raise DatasetError(f"data set {folder.root}, split '{name}'", list(map(str, problems)), count)
    classes = tuple(drafts.classes if classes is None else classes)
    return Split(name, classes, drafts.to_table(classes), faults.dropped.all, faults.notes.all)
