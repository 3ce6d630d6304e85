"""Where data sets come from: the embedded ones are generated, PASCAL VOC is downloaded."""

import abc
import os
from pathlib import Path

from pipeline.datasets.voc_archives import DATA_SETS, SBD, Archive, archives_of, mask_archives_of
from tasks.engine import locks, parameters
from tasks.engine.places import cache_folder
from tasks.engine.workshop import LOCKS, Workshop
from tasks.stage import Stage

DIGITS, SINGLE_DIGITS = EMBEDDED = "digits", "digits-single"


class GenerateDigits(Stage):
    """The embedded data set as a VOC folder: real handwritten digits on real photographs, with boxes, masks and keypoints.

    The splits `train`, `val` and `test` share neither a photograph nor a handwritten digit. Choose settings on `val`
    (`--test-split val`).
    """

    version = 3

    computes = False

    digits_train_images = parameters.integer(200, "digits", "train_images", "training images of the embedded set", minimum=1)
    digits_val_images = parameters.integer(100, "digits", "val_images", "validation images of the embedded set", minimum=1)
    digits_test_images = parameters.integer(100, "digits", "test_images", "test images of the embedded set", minimum=1)
    digits_seed = parameters.integer(0, "digits", "seed", "seed of the embedded set")

    def build(self, workshop: Workshop) -> dict:
        from pipeline.datasets.digits import make_digits

        counts = {split: getattr(self, f"digits_{split}_images") for split in ("train", "val", "test")}
        images = {f"{split}_images": count for split, count in counts.items()}
        make_digits(workshop.files / DIGITS, seed=self.digits_seed, **images)
        return {"images": sum(counts.values())}


class GenerateSingleDigits(Stage):
    """More images like those of `digits`, with one digit each: for a network that names and finds the only object of an image.

    Its splits share neither a photograph nor a handwritten digit, nor do they share one with another split of `digits`.
    """

    computes = False

    single_train_images = parameters.integer(1000, "digits", "single_train_images", "training images of digits-single", minimum=1)
    single_val_images = parameters.integer(200, "digits", "single_val_images", "validation images of digits-single", minimum=1)
    single_test_images = parameters.integer(300, "digits", "single_test_images", "test images of digits-single", minimum=1)
    digits_seed = GenerateDigits.digits_seed

    def build(self, workshop: Workshop) -> dict:
        from pipeline.datasets.digits import make_digits

        counts = {split: getattr(self, f"single_{split}_images") for split in ("train", "val", "test")}
        images = {f"{split}_images": count for split, count in counts.items()}
        make_digits(workshop.files / SINGLE_DIGITS, seed=self.digits_seed, most=1, **images)
        return {"images": sum(counts.values())}


def dataset_setting():
    description = f"digits, digits-single, {', '.join(DATA_SETS)} (downloaded), or a folder in VOC's, COCO's or YOLO's layout"
    return parameters.text(DIGITS, "dataset", "name", description)


class Download(Stage):
    """A data set by name: its archives, unpacked into one VOC folder.

    They are downloaded to `data/archives/`, unless they are there already.
    """

    computes = False
    resolved = ("dataset",)

    dataset = dataset_setting()
    voc_mirror = parameters.names(
        (), "dataset", "voc_mirror", "addresses of folders with VOC's archives, tried before the official ones", significant=False
    )

    @abc.abstractmethod
    def archives(self) -> tuple[Archive, ...]:
        """The archives of the data set, in the order in which they are unpacked."""

    @abc.abstractmethod
    def unpack(self, archive: Archive, path: Path, root: Path) -> dict:
        """Unpacks the archive's file `path` into the folder `root`; returns figures."""

    def resolve(self) -> dict:
        return {"archives": {archive.name: archive.md5 for archive in self.archives()}}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.errors import DatasetError, PipelineError

        archives = self.archives()
        paths, problems, figures = [], [], {}
        for archive in archives:
            try:
                paths.append(self._fetch(archive))
            except PipelineError as error:
                problems.append(str(error))
        if problems:
            raise DatasetError(f"data set {self.dataset}", problems)
        root = workshop.files / self.dataset
        for archive, path in zip(archives, paths, strict=True):
            figures |= self.unpack(archive, path, root)
        os.sync()  # flushes all files together: after that, to flush each file takes a third of the time
        return {"images": sum(1 for _ in (root / "JPEGImages").iterdir()), **figures}

    def _fetch(self, archive: Archive) -> Path:
        from pipeline.downloads import Checksum, fetch

        target, urls = Path(self.data_dir) / "archives" / archive.name, archive.urls(self.voc_mirror)
        # Another data set may need the same archive at the same time.
        with locks.held(cache_folder(Path(self.cache_dir), LOCKS) / f"{archive.name}.lock"):
            return fetch(f"{archive.name} is", target, urls, Checksum("md5", archive.md5), progress=self.progress("MB"))


class DownloadVOC(Download):
    """PASCAL VOC by name: its images, boxes and lists."""

    def archives(self) -> tuple[Archive, ...]:
        return archives_of(self.dataset)

    def unpack(self, archive: Archive, path: Path, root: Path) -> dict:
        from pipeline.datasets.voc_archives import unpack

        unpack(path, root)
        return {}


class DownloadMasks(Download):
    """PASCAL VOC by name with its class masks, or `sbd`: VOC 2012 with the masks of the Semantic Boundaries Dataset."""

    def archives(self) -> tuple[Archive, ...]:
        return mask_archives_of(self.dataset)

    def unpack(self, archive: Archive, path: Path, root: Path) -> dict:
        from pipeline.datasets.sbd import unpack_sbd
        from pipeline.datasets.voc_archives import WITH_MASKS, unpack

        if archive.folder == SBD:
            return unpack_sbd(path, root)
        unpack(path, root, WITH_MASKS)
        return {}
