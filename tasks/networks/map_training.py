"""What stages that run a network on whole images share; for those that train: settings, images read ahead, a log."""

import itertools
import logging
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from tasks.data.index import IndexDataset
from tasks.data.sources import EMBEDDED
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.processes import run_ahead, start_pool
from tasks.engine.task import CachedTask
from tasks.networks.base import IMAGE_CACHE_MEGABYTES, NetworkTask, mirror_setting, readers_setting
from tasks.networks.conv_maps import ConvFeatures, open_maps
from tasks.networks.defaults import defaults_of
from tasks.networks.schedules import lr_step_of
from tasks.networks.training_options import TrainingOptions

logger = logging.getLogger("stages")

RELEASE_SCALE, RELEASE_LONGEST = 600, 1000  # lib/fast_rcnn/config.py of rbgirshick/fast-rcnn: SCALES, MAX_SIZE
RELEASE_LR_STEP = 30000  # models/*/solver.prototxt of rbgirshick/fast-rcnn


def longest_side(task: "ImageScale", scales: tuple[int, ...]) -> int:
    """The limit of the longer side where images have several `scales`: the given one, or as for the largest of them."""
    return task.fast_longest_side or max(scales) * RELEASE_LONGEST // RELEASE_SCALE


class ImageScale(NetworkTask):
    """A stage that runs the network on whole, scaled images."""

    resolved = (*NetworkTask.resolved, "fast_scale", "fast_longest_side")

    fast_scale = parameters.integer(0, "fast", "scale", "shorter side of images; 0: 600, or the backbone's default")
    fast_longest_side = parameters.integer(0, "fast", "longest_side", "limit of the longer side; 0: 5/3 of the scale")

    @property
    def sides(self) -> tuple[int, int]:
        shorter = self.fast_scale or defaults_of(self.backbone).scale
        return shorter, self.fast_longest_side or shorter * RELEASE_LONGEST // RELEASE_SCALE

    def resolve(self) -> dict:
        # The chosen values of the defaults, so that the key changes with them.
        return {**super().resolve(), "sides": self.sides}

    def maps_of(self, stage: type[CachedTask], split: str) -> CachedTask:
        """The task of `stage` for the maps of `split` at this stage's scale; mirrored images as well if training uses them."""
        shorter, longest = self.sides
        mirrored = self.mirror and self.dataset not in EMBEDDED and split == self.train_split
        return self.clone(stage, split=split, map_scales=(shorter,), map_longest_side=longest, map_mirrored=mirrored)


class MapTraining(ImageScale, TrainingOptions):
    """A stage that trains on the maps of whole training images. The trunk makes the maps, or they are cached."""

    resolved = (
        *ImageScale.resolved, *TrainingOptions.resolved, "warm_up", "warm_up_start", "train_scales", "clip_gradients",
    )

    freeze = parameters.choice(
        "first", ("none", "first", "all"), "fast", "freeze", "conv layers that are not trained; all: training reads cached maps"
    )
    mirror = mirror_setting()
    train_scales = parameters.integers(
        (), "fast", "train_scales", "shorter sides of training images, of which each gets one at random; empty: the scale",
        minimum=1,
    )
    warm_up = parameters.integer(0, "training", "warm_up", "first steps, over which the learning rate rises")
    warm_up_start = parameters.number(
        0, "training", "warm_up_start", "share of the learning rate from which it rises", minimum=0, maximum=1
    )
    clip_gradients = parameters.number(
        0, "training", "clip_gradients",
        "norm to which larger gradients of a step are scaled down; 0: the backbone's default, which may be none", minimum=0,
    )
    readers = readers_setting()

    def resolve(self) -> dict:
        # The default stays out of keys, so that older keys stay valid.
        chosen = {"warm_up": self.warm_up, "warm_up_start": self.warm_up_start} if self.warm_up else {}
        if self.train_scales:
            chosen["train_scales"] = [*self.train_scales, self.train_longest]
        if self.clip:
            chosen["clip_gradients"] = self.clip
        return {**super().resolve(), **chosen}

    @property
    def clip(self) -> float:
        return self.clip_gradients or defaults_of(self.backbone).clip_gradients

    @property
    def train_longest(self) -> int:
        """The limit of the longer side of training images."""
        return longest_side(self, self.train_scales) if self.train_scales else self.sides[1]

    def train_maps_of(self, stage: type[CachedTask]) -> CachedTask:
        """The task of `stage` for the maps of the training split, at all scales of training."""
        maps = self.maps_of(stage, self.train_split)
        if not self.train_scales:
            return maps
        return maps.clone(map_scales=self.train_scales, map_longest_side=self.train_longest)

    def schedule(self, resolved: dict):
        from pipeline.networks.training import Schedule

        return Schedule(
            self.iterations, resolved["learning_rate"], resolved["lr_step"], self.warm_up, self.warm_up_start, self.clip
        )

    def train_index(self) -> IndexDataset:
        return self.clone(IndexDataset, split=self.train_split)

    def frozen_maps(self) -> dict[str, CachedTask]:
        """The cached maps to train on, if the trunk keeps its first weights."""
        return {"maps": self.train_maps_of(ConvFeatures)} if self.freeze == "all" else {}

    def settle(self, iterations: int, learning_rate: float, lr_step: int, release_lr_step: int, *faster: str) -> dict:
        """The learning rates of a training, and the step at which they fall; an argument of 0 means the default.

        The defaults depend on the backbone and the number of steps. `faster` names the other rates that the training needs.
        """
        defaults = defaults_of(self.backbone)
        rates = {name: getattr(defaults, name) for name in faster}
        lr_step = lr_step_of(lr_step, iterations, release_lr_step)
        return {"learning_rate": learning_rate or defaults.rate, "lr_step": lr_step, **rates}

    def map_inputs(self, split, maps: Artefact | None) -> Callable[[Iterator], Iterator]:
        """A function from samples to their inputs: the cached maps or, without `maps`, the pixels, which are read ahead."""
        from pipeline.networks.map_inputs import MapInput
        from pipeline.networks.whole_images import Scaling

        shorter, longest = self.sides[0], self.train_longest
        if maps:
            store = open_maps(maps, split.images)

            def from_cache(samples: Iterator) -> Iterator:
                for sample in samples:
                    stored = store.read(sample.number, sample.scale or shorter, sample.mirrored)
                    yield MapInput(None, stored.cells, stored.scaling)

            return from_cache
        root = self.train_index().root
        start_pool(self.readers)

        def from_pixels(samples: Iterator) -> Iterator:
            ahead, samples = itertools.tee(samples)
            jobs = ((root, split.images[sample.number]) for sample in ahead)
            for sample, pixels in zip(samples, run_ahead(_read, jobs, self.readers)):
                yield MapInput(pixels, None, Scaling.of(*pixels.shape[:2], sample.scale or shorter, longest))

        return from_pixels


def _read(job):
    root, record = job
    return _kept_images(root).read(record)


@cache
def _kept_images(root: Path):
    """The images that a reading process keeps in memory."""
    from pipeline.images.reading import ImageCache

    return ImageCache(root, IMAGE_CACHE_MEGABYTES)


def warn_of_unused(label: str, unused: int, total: int, why: str) -> None:
    """Warns when the training never sees some of its images."""
    if unused:
        logger.warning("%s: %d of %d training images are not used: %s", label, unused, total, why)
