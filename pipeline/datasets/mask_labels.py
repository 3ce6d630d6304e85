"""The labels of a split's class masks while the split is read: their names, and whether each value of a mask has one.

    <root>/classes.txt    the name of each value in the masks, one a line, from value 0 on

Without that file the values are numbered as the split's classes are, from 1 on, and 0 is the background. The objects then show
whether that is right: a class that is in an image's mask must be one of its objects.
"""

import difflib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets.classes import listed as shortened
from pipeline.datasets.drafts import Draft
from pipeline.datasets.faults import Remark
from pipeline.datasets.label_names import BACKGROUND, BACKGROUND_NAME, LabelNames, chosen_labels, is_background, of_classes
from pipeline.datasets.masks import MASK_FOLDERS, VOID
from pipeline.datasets.reading import Folder
from pipeline.errors import PipelineError

FILE = "classes.txt"
NAME_THEM = f"name the values of the masks in {FILE}, one a line from value 0 on"
CLASS_MASK = MASK_FOLDERS["class_mask"]


@dataclass(frozen=True)
class MaskValues:
    """What the class mask of one image holds: its file, its `values` and how many pixels each has, and its objects' names.

    `names` is None for an image without an annotation.
    """

    path: Path
    values: tuple[int, ...]
    counts: tuple[int, ...]
    names: frozenset[str] | None


class MaskLabels:
    """Reads the class masks of a split. `folder.rules.masks` says that the split is read for them."""

    def __init__(self, folder: Folder):
        self._folder, self._masks = folder, list[MaskValues]()
        self._listed = self._read_names()
        chosen, classes = folder.rules.only_classes, folder.classes.names
        if self._listed and classes is None:
            folder.classes = type(folder.classes)(things(self._listed))
        if chosen and self._listed:
            self._check_chosen(classes or (), self._listed)
        elif chosen:
            self._miss_names("--classes needs the names of the masks' values")

    def _read_names(self) -> tuple[str, ...] | None:
        folder = self._folder
        if folder.rules.masks and folder.rules.masks.names:
            return folder.rules.masks.names
        if FILE in folder.digests:
            with folder.faults.collected("lists of classes that cannot be used"):
                return parse_names(folder.root / FILE, folder.read(FILE))
        return None

    def _miss_names(self, why: str) -> None:
        self._folder.faults.error("masks without names", f"{self._folder.root / FILE}: no such file, and {why}", NAME_THEM)

    def _check_chosen(self, classes: Sequence[str], in_files: Sequence[str]) -> None:
        for name in classes:
            if name not in in_files:
                nearest = difflib.get_close_matches(name, in_files, n=1)
                text = f"{self._folder.root}: the masks have no class '{name}'"
                text += f" (did you mean '{nearest[0]}'?)" if nearest else f", only {shortened(in_files)}"
                self._folder.faults.error("classes without a mask", text, "change --classes")

    def read(self, image: Draft, id: str, names: Collection[str] | None, must_have: bool) -> None:
        """Takes the class mask of an image; `names` are those of its objects, None for an image without an annotation.

        A missing mask is an error if the image `must_have` one.
        """
        name, faults = f"{CLASS_MASK}/{id}.png", self._folder.faults
        path = self._folder.root / name
        if name not in self._folder.digests:
            tell = faults.error if must_have else faults.note
            advice = "add it or take its image out of the list" if must_have else "segmentation leaves their images out"
            tell("class masks that are missing", f"{path}: no such file", advice)
        elif (mask := self._folder.read_mask(image, "class_mask", name)) is not None:
            pixels = np.bincount(mask.ravel())
            values = np.flatnonzero(pixels)
            counts = tuple(pixels[values].tolist())
            self._masks.append(MaskValues(path, tuple(values.tolist()), counts, None if names is None else frozenset(names)))

    def finish(self) -> LabelNames:
        """The labels of the split. What is wrong with the values goes to the faults."""
        folder = self._folder
        classes = folder.drafts.classes if folder.classes.names is None else folder.classes.names
        if not self._listed and not classes and not folder.faults.errors:
            self._miss_names("there are no objects whose classes would name the masks' values")
        in_files = self._listed or of_classes(classes).names
        if self._listed or (classes and not folder.rules.only_classes):  # otherwise the values have no names
            for mask in self._masks:
                self._check_values(mask, in_files)
        if not folder.rules.only_classes:
            return LabelNames(in_files)
        self._tell_left_out(in_files, classes)
        return chosen_labels(in_files, classes)

    def _check_values(self, mask: MaskValues, in_files: Sequence[str]) -> None:
        faults, last = self._folder.faults, len(in_files) - 1
        for value, count in zip(mask.values, mask.counts, strict=True):
            if value == VOID:
                continue
            where = f"{mask.path}: value {value} ({count:,} pixels)"
            if value > last:
                advice = f"expected 0 to {last}, or {VOID} for void; correct the mask, or {NAME_THEM}"
                faults.error("masks with values of no class", where, advice)
            elif not self._listed and value != BACKGROUND and mask.names is not None and in_files[value] not in mask.names:
                text = f"{where} would be '{in_files[value]}', and no object of the image is of this class"
                faults.error("masks with classes that are none of their objects'", text, NAME_THEM)

    def _tell_left_out(self, in_files: Sequence[str], classes: Sequence[str]) -> None:
        """Notes which pixels become background since their classes are not wanted."""
        left_out: Counter[str] = Counter()
        masks = 0
        for mask in self._masks:
            of_mask = {
                in_files[value]: count for value, count in zip(mask.values, mask.counts, strict=True)
                if value < len(in_files) and in_files[value] not in classes and not is_background(in_files[value])
            }
            left_out.update(of_mask)
            masks += bool(of_mask)
        if masks:
            by_class = tuple(f"{count:,} pixels of class '{name}'" for name, count in left_out.most_common())
            advice = f"these pixels become background, since --classes names only {shortened(classes)}"
            self._folder.faults.notes.adopt(Remark("masks with other classes", advice, masks, by_class))


def things(names: Sequence[str]) -> tuple[str, ...]:
    """The names of the values without that of the background."""
    return tuple(names[1:] if names and is_background(names[BACKGROUND]) else names)


def parse_names(path: Path, content: bytes) -> tuple[str, ...]:
    """The names in a list of classes; the background is called `background` whatever it is called there.

    Raises PipelineError, naming file and line, for a file that is no text, empty lines, repeated names and too many of them.
    """
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    if not lines:
        raise PipelineError(f"{path}: names no class; {NAME_THEM}")
    if len(lines) > VOID:
        raise PipelineError(f"{path}: names {len(lines):,} values; expected at most {VOID}: value {VOID} is void")
    if is_background(lines[0]):
        lines[0] = BACKGROUND_NAME
    for number, line in enumerate(lines, 1):
        if not line:
            raise PipelineError(f"{path}: line {number} is empty; write the name of the value {number - 1}")
        if (first := lines.index(line) + 1) < number or (number > 1 and is_background(line)):
            raise PipelineError(f"{path}: line {number} is '{line}', as line {first}; "
                                "give each value a name of its own, and the background value 0")
    return tuple(lines)
