"""IndexesFirst: a stage for which models are trained and tested."""

import logging

from pipeline.text import printable
from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.engine.disk import check_disk
from tasks.engine.task import CachedTask
from tasks.stage import Stage

logger = logging.getLogger("stages")


class IndexesFirst(Stage):
    """A stage whose splits are all indexed before anything else: a fault in the test split is told before hours of training.

    Luigi runs `deps` first. The other required tasks follow from `run`, which Luigi calls again when they are done.
    """

    def splits(self) -> dict[str, IndexDataset]:
        """The index of each split."""
        return {name: self.clone(IndexDataset, split=getattr(self, f"{name}_split")) for name in ("train", "test")}

    def deps(self) -> list[CachedTask]:
        return list(self.splits().values())

    def warn_of_shared_images(self) -> None:
        """Warns of test images that are also training images. Without --classes, the index of the test split does it."""
        from pipeline.datasets.overlap import shared_images

        splits = {name: load_split(task.artefact) for name, task in self.splits().items()}
        if shared := shared_images(splits["test"], splits["train"]):
            logger.warning("%s: %s", self.label, printable(shared))

    def run(self):
        check_disk(self, self.requires().values(), is_told=self.is_of_command)
        yield list(self.requires().values())
        self.make_artefact()
