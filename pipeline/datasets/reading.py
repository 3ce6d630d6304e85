"""Reading a split strictly, whatever its format: faults are collected, files are the digested ones, boxes lie in their images.

A reader drafts each image, since labels wait for the class names, and an image's size for its file.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.datasets.records import ImageRecord, Split
from pipeline.errors import DatasetError, PipelineError
from pipeline.files import MAX_MEGAPIXELS, read_regular
from pipeline.images import decode_image
from pipeline.text import shown

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
ADVICE = "correct it, or leave such boxes out with --on-bad-annotation drop"
# Extent of an image that could not be read: no float32 box is outside it.
UNKNOWN_EXTENT = float(np.finfo(np.float32).max)


class Faults:
    """What is wrong with a split: `problems` end the reading, `dropped` are objects left out.

    `droppable` is the list for objects that cannot be right: `dropped` with `on_bad_annotation` "drop", `problems` with "error".
    Images may have `max_megapixels` millions of pixels. Raises PipelineError for another `on_bad_annotation`.
    """

    def __init__(self, on_bad_annotation: str, max_megapixels: float = MAX_MEGAPIXELS):
        if on_bad_annotation not in ("error", "drop"):
            raise PipelineError(f"on_bad_annotation is '{on_bad_annotation}'; expected 'error' or 'drop'")
        self.max_megapixels = max_megapixels
        self.problems: list[str] = []
        self.dropped: list[str] = []
        self.droppable = self.dropped if on_bad_annotation == "drop" else self.problems

    @contextmanager
    def collected(self) -> Iterator[None]:
        try:
            yield
        except PipelineError as error:
            self.problems += error.lines


@dataclass
class Draft:
    """An image whose objects' labels wait for the class names."""

    id: str
    path: str
    digest: str
    height: float = UNKNOWN_EXTENT
    width: float = UNKNOWN_EXTENT
    boxes: list[np.ndarray] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)

    def add(self, box: np.ndarray, name: str, difficult: bool) -> None:
        self.boxes.append(box)
        self.names.append(name)
        self.difficult.append(difficult)

    def to_record(self, index: Mapping[str, int]) -> ImageRecord:
        boxes = np.array(self.boxes, np.float32).reshape(-1, 4)
        labels = np.array([index[name] for name in self.names], np.int64)
        difficult = np.array(self.difficult, bool)
        return ImageRecord(self.id, self.path, self.digest, self.width, self.height, boxes, labels, difficult)


def is_plain_name(name: str) -> bool:
    """Whether `name` stays in the folder it is joined to."""
    return re.fullmatch(r"[^/\\\0]+", name) is not None and name not in (".", "..")


def read_file(path: Path, digests: Mapping[Path, str], missing: str = "no such file") -> bytes:
    """The content of `path`, which must have its digest in `digests`. Raises PipelineError, saying `missing` of a missing one."""
    take_out = "take its image out of the list"
    content = read_regular(path, f"mend that or {take_out}", f"{missing}; add it or {take_out}")
    if hashlib.sha256(content).hexdigest() != digests.get(path):
        raise PipelineError(f"{path}: changed while it was being indexed; run again")
    return content


def draft_image(root: Path, id: str, path: Path, digests: Mapping[Path, str], missing: str, faults: Faults) -> Draft:
    """The draft of the image file `path` below `root`, without objects; of unknown size where it cannot be decoded."""
    image = Draft(id, path.relative_to(root).as_posix(), digests.get(path, ""))
    with faults.collected():
        image.height, image.width = decode_image(path, read_file(path, digests, missing), faults.max_megapixels).shape[:2]
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


def to_box(corners: Sequence[float], height: float, width: float, limits: str, rounding: float = 0) -> np.ndarray:
    """The float32 box [4] of corners in our convention; what is outside the image by at most `rounding` pixels is cut off.

    ValueError says what is wrong with the box; `limits` words where it should lie.
    """
    if not np.isfinite(corners).all():
        raise ValueError("where a coordinate is not a number")
    x1, y1, x2, y2 = corners
    if min(x1, y1) < -rounding or x2 > width + rounding or y2 > height + rounding:
        raise ValueError(f"which is not inside {limits}")
    box = np.array([max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)], np.float32)
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError("which is empty or reversed")
    return box


def make_split(
    name: str, drafts: Sequence[Draft], classes: Sequence[str] | None, faults: Faults, root: Path, listed_in: Path
) -> Split:
    """The split of these images; the sorted names of their objects are its classes where `classes` is None.

    Raises DatasetError with all that `faults` holds, or when no image has an object; `listed_in` is the file that names them.
    """
    if not faults.problems and not any(image.names for image in drafts):
        faults.problems.append(f"{listed_in}: none of its {len(drafts)} image(s) has an object; annotate some")
    if faults.problems:
        raise DatasetError(f"data set {root}, split '{name}'", faults.problems)
    if classes is None:
        classes = sorted({name for image in drafts for name in image.names})
    index = {name: label for label, name in enumerate(classes)}
    return Split(name, tuple(classes), tuple(image.to_record(index) for image in drafts), tuple(faults.dropped))
