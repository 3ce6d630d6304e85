"""The index of one split of a data set: the stage reads and checks its images and annotations."""

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

from pipeline.datasets.voc_archives import DATA_SETS, SBD
from pipeline.files.reading import MAX_MEGAPIXELS
from pipeline.text import printable, shown
from tasks.data.sources import DIGITS, EMBEDDED, SINGLE_DIGITS, DownloadVOC, GenerateDigits, GenerateSingleDigits, dataset_setting
from tasks.data.splits import load_split, write_index
from tasks.engine import parameters
from tasks.engine.digests import AT_ONCE, MISSING, digest_json
from tasks.engine.task import CachedTask
from tasks.engine.trouble import check_file
from tasks.engine.workshop import Workshop
from tasks.stage import Stage

logger = logging.getLogger("stages")

RAREST = 5  # the log counts the objects of so many of the rarest classes: a misspelt name is among them


@parameters.inherits(GenerateDigits, GenerateSingleDigits, DownloadVOC)
class IndexDataset(Stage):
    """One split: its images, boxes and classes, checked strictly; all problems are reported together.

    If `classes` is empty, the classes are the names in the training split. Regions to ignore, such as COCO's crowds, are counted
    apart from objects.
    """

    version = 2
    computes = False
    resolved = ("dataset",)
    for_masks = False  # whether splits are read for their class masks

    dataset = dataset_setting()
    split = parameters.text("train", "dataset", "split", "name of the split to index")
    train_split = parameters.text("train", "dataset", "train_split", "split to train on")
    classes = parameters.names((), "dataset", "classes", "class names, separated by commas; empty: those in the training split")
    on_bad_annotation = parameters.choice(
        "error", ("error", "clip", "drop"), "dataset", "on_bad_annotation",
        "an object that cannot be right: error; drop leaves it out; clip cuts its box to the image where it can, else as drop",
    )
    exif = parameters.choice(
        "error", ("error", "upright", "stored"), "dataset", "exif",
        "images with a mark of rotation: error; upright: boxes count the turned pixels; stored: boxes count the stored pixels",
    )
    voc_first_pixel = parameters.integer(
        1, "dataset", "voc_first_pixel", "what the corners in VOC's layout count pixels from: 1, as VOC, or 0", maximum=1
    )
    test_fraction = parameters.number(
        0, "dataset", "test_fraction", "divides the only split of a folder: this part of its images is `test`, the rest `train`",
        minimum=0, maximum=0.9,
    )
    max_megapixels = parameters.number(  # in no key: a larger image is an error, and errors are not cached
        MAX_MEGAPIXELS, "run", "max_megapixels", "largest image, in millions of pixels", minimum=0, significant=False
    )

    def requires(self) -> dict[str, CachedTask]:
        required = {self.dataset: source} if (source := self.source()) else {}
        if not self.classes and self.split != self.train_split:
            required["train"] = self.clone(type(self), split=self.train_split)
        return required

    def source(self) -> CachedTask | None:
        """The stage that makes the data set; None for the user's own folder. If that exists, nothing is downloaded."""
        if self.dataset in EMBEDDED:
            return self.clone({DIGITS: GenerateDigits, SINGLE_DIGITS: GenerateSingleDigits}[self.dataset])
        return self.clone(DownloadVOC) if self.dataset in DATA_SETS and not self._user_folder.is_dir() else None

    @property
    def root(self) -> Path:
        """The folder of the data set."""
        source = self.source()
        return (source.artefact.folder / self.dataset if source else self._user_folder).absolute()

    @property
    def _user_folder(self) -> Path:
        in_data_dir = Path(self.data_dir) / self.dataset
        return in_data_dir if in_data_dir.is_dir() and not Path(self.dataset).is_dir() else Path(self.dataset)

    def file_digests(self) -> dict[str, str]:
        """The digest of each file that defines the split, by its name below `root`.

        In the user's own folder, the digest of the file as it is now; in a data set that a stage made, the recorded digest.
        """
        from pipeline.datasets.formats import split_files

        names, root = split_files(self.root, self.split, self.test_fraction, self.for_masks), str(self.root)
        if source := self.source():
            files = source.artefact.manifest["files"]
            return {name: files.get(f"{self.dataset}/{name}", {}).get("sha256", MISSING) for name in names}
        digests: dict[str, str] = {}
        for start in range(0, len(names), AT_ONCE):  # keeps only a part of the paths in memory
            batch = names[start:start + AT_ONCE]
            by_path = self.digest_memory.of(f"{root}/{name}" for name in batch)
            digests |= {name: by_path[f"{root}/{name}"] for name in batch}
        return digests

    def resolve(self) -> dict:
        if self.source():
            return {}
        files = self.file_digests()
        return {"files": len(files), "digest": digest_json(files)}

    def complete(self) -> bool:
        # A stage that reads the index also reads the images.
        return super().complete() and all(task.complete() for task in self.requires().values())

    def build(self, workshop: Workshop) -> dict:
        from pipeline.datasets.formats import read_split
        from pipeline.datasets.overlap import shared_images
        from pipeline.errors import DatasetError, PipelineError

        if self.dataset == SBD and not (self.for_masks or self.root.is_dir()):
            raise PipelineError(f"--dataset {SBD}: is for segmentation; the boxes of its photographs are in voc2012")
        train = self.inputs().get("train")
        classes = self.classes or (tuple(train.json("index.json", _without_image)["classes"]) if train else None)
        digests = self.file_digests()
        try:
            rules = {**self._rules(), "test_fraction": self.test_fraction, "masks": self.mask_rules(workshop)}
            split = read_split(self.root, self.split, classes, digests, **rules)
        except DatasetError:
            self._check_source(digests)
            raise
        split = replace(split, mirror=self.dataset not in EMBEDDED)
        if train and (shared := shared_images(split, load_split(train))):
            split = replace(split, notes=(*split.notes, shared))
        self._check_classes(split)
        write_index(workshop.files / "index.json", split)
        counts = Counter(split.classes[label] for image in split.images for label in image.labels[~image.ignored])
        rarest = ", ".join(f"{name} {counts[name]}" for name in sorted(split.classes, key=counts.__getitem__)[:RAREST])
        objects = sum(counts.values())
        ignored = sum(int(image.ignored.sum()) for image in split.images)
        figures = self._tell("dropped", split.dropped) | self._tell("noted", split.notes)
        figures |= {"ignored": ignored} if ignored else {}
        figures |= self.figures(split)
        boxes = {"objects": objects, "classes": len(split.classes), **({"rarest": rarest} if objects else {})}
        return {"images": len(split.images), **boxes, **figures}

    def mask_rules(self, workshop: Workshop):
        """How the class masks are read, as `MaskRules`; None where the split is read for boxes."""
        return None

    def figures(self, split) -> dict:
        """More figures for the manifest."""
        return {}

    def _rules(self) -> dict:
        """The rules by which the files are read."""
        chosen = bool(self.classes)
        # VOC's own annotations count the stored pixels.
        exif = "stored" if self.source() and self.exif == "error" else self.exif
        return {
            "on_bad_annotation": self.on_bad_annotation, "exif": exif, "voc_first_pixel": self.voc_first_pixel,
            "only_classes": chosen, "every_class": chosen and self.split == self.train_split,
            "max_megapixels": self.max_megapixels,
        }

    def _tell(self, what: str, remarks) -> dict:
        """Warns of each kind of fault, and returns them as figures for the manifest."""
        for remark in remarks:
            logger.warning("%s: %s: %s", self.label, what, printable(remark))
        return {what: sum(remark.count for remark in remarks), f"{what}_kinds": list(map(str, remarks))} if remarks else {}

    def _check_source(self, digests: dict[str, str]) -> None:
        """Raises DamagedArtefact when a stage made the data set and one of its files has changed since then."""
        for name, digest in digests.items() if self.source() else ():
            path = self.root / name
            if self.digest_memory.of([path])[path] != digest:
                check_file(Path(self.cache_dir), path)

    def _check_classes(self, split) -> None:
        """Raises PipelineError for class names that later stages could not use: the user learns it before hours of work."""
        from pipeline.datasets.classes import SHOWN, fault_of_class
        from pipeline.errors import PipelineError

        names = split.classes
        problems = [f"{shown(name)} is given twice" for name in sorted({name for name in names if names.count(name) > 1})]
        problems += [f"{shown(name)} {fault}" for name in names if (fault := fault_of_class(self.split, name))]
        if problems:
            more = f"; and {len(problems) - SHOWN:,} more like these" if len(problems) > SHOWN else ""
            advice = "change --classes or the annotations"
            raise PipelineError(f"classes of {self.dataset}: {'; '.join(problems[:SHOWN])}{more}; {advice}")


def _without_image(value: dict) -> dict | None:
    """For `object_hook`: drops the images of an index, which a reader of its classes does not need."""
    return None if "digest" in value else value
