"""The data set: the embedded one made, and each split read, checked and indexed."""

from dataclasses import replace
from pathlib import Path

from tasks import parameters
from tasks.artefacts import Workshop
from tasks.cache import CachedTask, load_split
from tasks.digests import canonical_json, digest_json

DIGITS = "digits"


class GenerateDigits(CachedTask):
    """The embedded data set as a VOC folder: real handwritten digits on real photographs."""

    numeric = False

    digits_train_images = parameters.integer(200, "digits", "train_images", "training images of the embedded set", minimum=1)
    digits_test_images = parameters.integer(100, "digits", "test_images", "test images of the embedded set", minimum=1)
    digits_seed = parameters.integer(0, "digits", "seed", "seed of the embedded set")

    def build(self, workshop: Workshop) -> dict:
        from pipeline.datasets.digits import make_digits

        make_digits(workshop.files / DIGITS, self.digits_train_images, self.digits_test_images, self.digits_seed)
        return {"images": self.digits_train_images + self.digits_test_images}


@parameters.inherits(GenerateDigits)
class IndexDataset(CachedTask):
    """One split: its images, boxes and classes, checked strictly; every problem is reported at once.

    Without `classes`, these are the names found in the training split.
    """

    numeric = False
    outside = ("dataset",)

    dataset = parameters.text(DIGITS, "dataset", "name", "digits, or a folder in VOC's or COCO's layout")
    split = parameters.text("train", "dataset", "split", "list in ImageSets/Main, or COCO's annotations/instances_NAME.json")
    train_split = parameters.text("train", "dataset", "train_split", "split to train on")
    classes = parameters.names((), "dataset", "classes", "class names, separated by commas; empty: those in the training split")
    on_bad_annotation = parameters.choice(
        "error", ("error", "drop"), "dataset", "on_bad_annotation", "what to do with a box that cannot be right"
    )

    def requires(self) -> dict[str, CachedTask]:
        required: dict[str, CachedTask] = {}
        if self.dataset == DIGITS:
            required["digits"] = self.clone(GenerateDigits)
        if not self.classes and self.split != self.train_split:
            required["train"] = self.clone(IndexDataset, split=self.train_split)
        return required

    @property
    def root(self) -> Path:
        """The folder of the data set."""
        if self.dataset == DIGITS:
            return self.clone(GenerateDigits).artefact.folder.absolute() / DIGITS
        named = Path(self.data_dir) / self.dataset
        return (named if named.is_dir() and not Path(self.dataset).is_dir() else Path(self.dataset)).absolute()

    def file_digests(self) -> dict[Path, str]:
        """The digest of each file that defines the split, as it is now."""
        from pipeline.datasets.formats import split_files

        return self.outside_memory.of(split_files(self.root, self.split))

    def outside_digests(self) -> dict:
        if self.dataset == DIGITS:
            return {}
        files = {path.relative_to(self.root).as_posix(): digest for path, digest in self.file_digests().items()}
        return {"files": len(files), "digest": digest_json(files)}

    def complete(self) -> bool:
        # Who reads the index reads the images as well.
        return super().complete() and all(task.complete() for task in self.requires().values())

    def build(self, workshop: Workshop) -> dict:
        from pipeline.datasets.formats import read_split

        train = self.inputs().get("train")
        classes = self.classes or (load_split(train).classes if train else None)
        split = read_split(self.root, self.split, classes, self.file_digests(), self.on_bad_annotation)
        split = replace(split, mirror=self.dataset != DIGITS)
        self._check_classes(split)
        (workshop.files / "index.json").write_text(canonical_json(split.to_json()) + "\n")
        objects = sum(len(image.labels) for image in split.images)
        dropped = {"dropped": len(split.dropped), "dropped_annotations": list(split.dropped)} if split.dropped else {}
        return {"images": len(split.images), "objects": objects, "classes": len(split.classes), **dropped}

    def _check_classes(self, split) -> None:
        """Raises PipelineError for names that a later stage could not work with, before hours are spent."""
        from pipeline.errors import PipelineError

        names = split.classes
        wrong = [f"{name!r} is given twice" for name in sorted({name for name in names if names.count(name) > 1})]
        wrong += [f"{name!r} cannot name a file" for name in names if not name.strip() or "/" in name or "\\" in name]
        if self.split == self.train_split:
            present = {names[label] for image in split.images for label in image.labels}
            wrong += [f"{name!r} has no object in split {split.name}" for name in names if name not in present]
        if wrong:
            raise PipelineError(f"classes of {self.dataset}: {'; '.join(wrong)}; change --classes or the annotations")
