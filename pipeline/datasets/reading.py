"""Reading a split strictly, whatever its format: faults are collected, files are the digested ones, boxes lie in their images.

A reader drafts each image, since labels wait for the class names, and an image's size for its file. Files are
identified by their names, relative to the data set's folder, with `/` between folders: 100,000 texts are quicker than paths.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets.classes import Classes
from pipeline.datasets.drafts import UNKNOWN_EXTENT, Draft, Drafts
from pipeline.datasets.edges import Edges
from pipeline.datasets.faults import Faults, Remark
from pipeline.datasets.keypoints import inside
from pipeline.datasets.label_names import LabelNames
from pipeline.datasets.masks import MASK_FOLDERS, decode_mask
from pipeline.datasets.overlap import note_repeated
from pipeline.datasets.records import UPRIGHT, MaskFile, Split
from pipeline.errors import DatasetError, PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS, read_regular
from pipeline.images.reading import decode, open_image, orientation_of
from pipeline.text import shown

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".webp", ".BMP", ".WEBP")
CORRECT = "correct it"
EXIF = ("error", "upright", "stored")
MARKED = "images with a mark of rotation (EXIF)"
EXIF_ADVICE = {
    "error": "if the boxes were drawn on the image as programs show it, turned by its mark (so do labelImg, CVAT, Label Studio), "
             "give --exif upright or save its pixels turned; if the boxes count the stored pixels, give --exif stored",
    "upright": "its pixels are read turned by the mark (--exif upright)",
    "stored": "its stored pixels are read (--exif stored), though programs show it turned",
}
QUARTER_TURNS = (5, 6, 7, 8)  # orientations that exchange width and height


@dataclass(frozen=True)
class MaskRules:
    """That a split is read for its class masks, not for boxes.

    `names` are those of the values in the masks, where the caller knows them. Masks that are drawn from outlines are written
    below the folder `drawn`; `progress(images, total)` yields the images and shows how far the drawing is.
    """

    names: tuple[str, ...] | None = None
    drawn: Path | None = None
    progress: Callable[[Iterable, int], Iterable] = lambda images, total: images


@dataclass(frozen=True)
class Rules:
    """How strictly, and by which conventions, the files of a data set are read; `read_split` of `voc.py` explains them."""

    on_bad_annotation: str = "error"
    exif: str = "error"
    voc_first_pixel: int = 1
    only_classes: bool = False
    every_class: bool = False
    max_megapixels: float = MAX_MEGAPIXELS
    masks: MaskRules | None = None

    def __post_init__(self):
        for name, value, choices in (("exif", self.exif, EXIF), ("voc_first_pixel", self.voc_first_pixel, (0, 1))):
            if value not in choices:
                raise PipelineError(f"{name} is {value!r}; expected one of {', '.join(map(str, choices))}")


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

    def __init__(self, root: Path, digests: Mapping[str, str], classes: Sequence[str] | None = None, rules: Rules = Rules()):
        self.root, self.digests, self.rules = Path(root).absolute(), digests, rules
        self.faults, self.drafts = Faults(rules.on_bad_annotation), Drafts(rules.exif == "upright")
        self.classes = Classes(classes, rules.only_classes)
        self.take_out = "take its image out of the list"  # what to do about an image that cannot be used

    def edges(self, first_pixel: int | None = None) -> Edges:
        """What fits boxes to their images, for the whole split."""
        return Edges(self.faults, self.rules.on_bad_annotation == "clip", first_pixel)

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
        image, path = self.drafts.add_image(id, name, self.digests.get(name, "")), self.root / name
        with self.faults.collected("images that cannot be used"):
            opened = open_image(path, self.read(name, missing), self.rules.max_megapixels)
            mark = orientation_of(path, opened)
            if mark != UPRIGHT:
                self._add_mark(path, mark)
            if mark == UPRIGHT or self.rules.exif != "error":
                image.set_size(*_size_of(path, opened, mark if self.drafts.upright else UPRIGHT))
        return image

    def read_mask(self, image: Draft, field: str, name: str) -> np.ndarray | None:
        """Takes the mask file `name` as the `field` of an image's record; None if it is no mask of the image's size."""
        with self.faults.collected("masks that cannot be used"):
            size = None if image.width == UNKNOWN_EXTENT else (int(image.height), int(image.width))
            mask = decode_mask(self.root / name, self.read(name), size, self.rules.max_megapixels)
            image.set_mask(field, MaskFile(name, self.digests[name]))
            return mask
        return None

    def labelled_inside(self, where: str, keypoints: np.ndarray | None, image: Draft) -> np.ndarray | None:
        """The keypoints [k x 3] of an object; those outside the image lose their label, and are told of."""
        if keypoints is None or (in_image := inside(keypoints, image.width, image.height)).all():
            return keypoints
        text = f"{where}: {int((~in_image).sum())} keypoint(s) outside the image of {image.width} x {image.height}"
        self.faults.note("objects with keypoints outside their image", text, "they count as not labelled")
        return np.where(in_image[:, None], keypoints, 0)

    def _add_mark(self, path: Path, mark: int) -> None:
        """Tells of a mark of rotation. Without a rule for it the image's size stays unknown: its boxes cannot be checked."""
        self.drafts.marks[len(self.drafts) - 1] = mark
        tell = self.faults.error if self.rules.exif == "error" else self.faults.note
        message = f"{path}: has the mark of rotation (EXIF orientation) {mark}"
        tell(MARKED, message, EXIF_ADVICE[self.rules.exif])


def _size_of(path: Path, image: Image.Image, orientation: int) -> tuple[int, ...]:
    """Height and width of an image that `orientation_of` has decoded, turned as `orientation` says."""
    if image.mode != "RGB":  # may still turn out to be broken when its colours are looked up
        return decode(path, image, orientation).shape[:2]
    return image.size if orientation in QUARTER_TURNS else image.size[::-1]


def check_size(where: str, width: float, height: float, image: Draft) -> None:
    """Raises PipelineError, which begins with `where`, when the annotated size is not that of the image file."""
    # Some tools write 0 x 0 for a size that they do not know.
    if image.width == UNKNOWN_EXTENT or min(width, height) <= 0 or (width, height) == (image.width, image.height):
        return
    here, is_turned = f"{where} is {_pixels(width)} x {_pixels(height)}", (height, width) == (image.width, image.height)
    if is_turned and image.mark in QUARTER_TURNS:
        if image.is_upright:  # of a program that did not look at the mark; the user says that the boxes are upright
            return
        raise PipelineError(f"{here}, the image is {image.width} x {image.height} as stored; its boxes were drawn on the image "
                            "as programs show it: give --exif upright, or save its pixels turned")
    fault = f"{here}, the image is {image.width} x {image.height}" + (": turned by a quarter" if is_turned else "")
    raise PipelineError(f"{fault}; put there the image that was annotated, or annotate this one (only if the boxes are right on "
                        "this one, correct the size)")


def _pixels(length: float) -> str:
    try:
        return f"{length:g}"
    except OverflowError:  # a whole number of hundreds of digits
        return shown(length)


def make_split(name: str, folder: Folder, listed_in: Path, labels: LabelNames | None = None) -> Split:
    """The split of the images read from `folder`; the sorted names of their objects are its classes if none are given.

    `labels` are those of the class masks, where the split is read for them. Raises DatasetError with all that is wrong, or when
    no image has an object (or a class mask); `listed_in` is the file that names the images.
    """
    faults, drafts, classes = folder.faults, folder.drafts, folder.classes
    classes.tell(faults, ", and background in the masks" if labels else "")
    if folder.rules.every_class and not faults.errors and not labels:
        classes.check_all_present(drafts.classes, str(listed_in), faults)
    reasons: tuple[Remark, ...] = ()
    if labels and not faults.errors and not any("class_mask" in masks for masks in drafts.masks.values()):
        message = f"{listed_in}: none of its {len(drafts):,} image(s) has a class mask"
        faults.error("splits without a class mask", message, f"put palette PNGs into {folder.root / MASK_FOLDERS['class_mask']}")
    if not labels and not faults.errors and not drafts.classes:
        message = f"{listed_in}: none of its {len(drafts):,} image(s) has an object{classes}"
        faults.error("splits without an object", message, "annotate some")
        reasons = *faults.dropped.all, *faults.notes.all
    if faults.errors:
        problems = faults.errors.all
        count = sum(problem.count for problem in problems)
        raise DatasetError(f"data set {folder.root}, split '{name}'", [*map(str, (*problems, *reasons))], count)
    note_repeated(zip(drafts.names[::3], drafts.names[2::3], strict=True), faults.notes)
    names = tuple(drafts.classes if classes.names is None else classes.names)
    table = drafts.to_table(names)
    if folder.rules.only_classes and not labels:
        classes.note_empty(((image.id for image in table if not len(image.labels))), faults.notes)
    return Split(name, names, table, faults.dropped.all, faults.notes.all, skeleton=drafts.skeleton, labels=labels)


