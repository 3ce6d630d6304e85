"""TimePrediction: the seconds that a trained chain takes for an image."""

import abc
import time
from collections.abc import Callable

from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.digests import canonical_json
from tasks.engine.processes import available_cores
from tasks.engine.workshop import Workshop
from tasks.stage import Stage


class TimePrediction(Stage):
    """Times one image at a time, from its pixels on, after a warm-up.

    The seconds are in the manifest; the file only names the images, so that the artefact always has the same digest.
    """

    priority = -1  # stages that need only a part of the host run first, because this one needs the whole host

    timed_images = parameters.integer(10, "evaluate", "timed_images", "test images that are timed", minimum=1)

    def resolve(self) -> dict:
        # They are in this key because seconds depend on them; bytes do not.
        return {"device": self.device, "threads": self.num_threads}

    @property
    def cores_needed(self) -> tuple[int, int]:
        return available_cores(), available_cores()  # so that no other stage runs at the same time

    def test_index(self) -> IndexDataset:
        """The index of the test split."""
        return self.clone(IndexDataset, split=self.test_split)

    @abc.abstractmethod
    def predictor(self, split) -> Callable:
        """What is timed: a function of an image's number in `split`, its record and its pixels."""

    def build(self, workshop: Workshop) -> dict:
        from pipeline.images.reading import read_record

        index = self.test_index()
        split = load_split(index.artefact)
        predict = self.predictor(split)
        chosen = range(0, len(split.images), max(1, len(split.images) // self.timed_images))[: self.timed_images]
        seconds = []
        for number in [chosen[0], *chosen]:  # the first run is the warm-up
            record = split.images[number]
            pixels = read_record(index.root, record)
            start = time.perf_counter()
            predict(number, record, pixels)
            seconds.append(time.perf_counter() - start)
        workshop.write("images.json", canonical_json([split.images[number].id for number in chosen]) + "\n")
        return {"test_seconds_per_image": sum(seconds[1:]) / len(chosen), "images": len(chosen)}
