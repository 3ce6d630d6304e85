"""The outlines of a split in COCO's format while it is read, and its masks."""

from collections import defaultdict

from pipeline.datasets.drafts import Draft
from pipeline.datasets.edges import ADVICE
from pipeline.datasets.faults import ObjectFaults
from pipeline.datasets.label_names import LabelNames, of_classes
from pipeline.datasets.masks import VOID
from pipeline.datasets.outlines import MOST_OBJECTS, Outline, box_runs, draw, to_runs, write_masks
from pipeline.datasets.reading import CORRECT, Folder
from pipeline.errors import PipelineError


class CocoMasks:
    """Collects the outlines of the objects, which the file lists in any order, and draws the masks of each image."""

    def __init__(self, folder: Folder):
        self._folder = folder
        self._outlines: defaultdict[int, list[Outline]] = defaultdict(list)
        self._objects: defaultdict[int, int] = defaultdict(int)

    def runs(self, here: ObjectFaults, outline, image: Draft) -> bytes | None:
        """The packed runs of an object's outline; None, and a fault, where it has none that can be drawn."""
        if not image.has_size:
            return None  # a fault of the image already
        try:
            return to_runs(outline, int(image.height), int(image.width))
        except PipelineError as error:
            if not here.any:  # an object is told of once
                here.bad_object("annotations without an outline", str(error), ADVICE)
            return None

    def add(self, image: Draft, runs: bytes, name: str | None) -> None:
        """Adds the next object of an image's record; without a name, a region to ignore."""
        self._objects[image.number] += 1
        self._outlines[image.number].append(Outline(runs, name, self._objects[image.number]))

    def add_unknown(self, image: Draft, runs: bytes | None, box) -> None:
        """Adds an object that is left out because it cannot be right: its pixels, or those of its box, become void."""
        if image.has_size and (runs or box is not None):
            runs = runs or box_runs(box, int(image.height), int(image.width))
            self._outlines[image.number].append(Outline(runs))

    def add_void(self, where: str, image: Draft, outline) -> None:
        """Adds the outline of pixels that belong to no class; `where` names the image in messages."""
        with self._folder.faults.collected("images whose void cannot be used"):
            if image.has_size:
                try:
                    runs = to_runs(outline, int(image.height), int(image.width))
                except PipelineError as error:
                    raise PipelineError(f"{where} {error} as its void; {CORRECT}") from error
                self._outlines[image.number].append(Outline(runs))

    def draw(self) -> LabelNames | None:
        """Writes the masks of all images and enters them in their drafts; None where there is no class."""
        folder, rules = self._folder, self._folder.rules.masks
        drafts, classes, faults = folder.drafts, folder.classes.names, folder.faults
        if folder.rules.every_class and not faults.errors:
            folder.classes.check_all_present(drafts.classes, str(folder.root), faults)
        names = drafts.classes if classes is None else classes
        if len(names) >= VOID:
            message = f"{folder.root}: has {len(names):,} classes"
            faults.error("too many classes", message, f"a class mask holds at most {VOID - 1}; give fewer with --classes")
        if faults.errors or not names or not (rules and rules.drawn):
            return None
        labels = {name: label for label, name in enumerate(names, 1)}
        for image in rules.progress(drafts.images(), len(drafts)):
            outlines = self._outlines.pop(image.number, [])
            class_mask, instance_mask = draw(outlines, labels, int(image.height), int(image.width))
            masks = {"class_mask": class_mask, "instance_mask": instance_mask}
            if self._objects[image.number] > MOST_OBJECTS:
                del masks["instance_mask"]
                message = f"image '{image.id}' has {self._objects[image.number]} objects"
                faults.note("images without an instance mask", message, f"one numbers at most {MOST_OBJECTS} objects")
            for field, file in write_masks(rules.drawn, image.id, masks).items():
                image.set_mask(field, file)
        return of_classes(names)
