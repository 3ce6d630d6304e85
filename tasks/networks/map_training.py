"""What stages that run a network on whole images share; for those that train: settings, images read ahead, a log."""

import contextlib
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
from tasks.networks.base import IMAGE_CACHE_MEGABYTES, NetworkTask, Training, mirror_setting
from tasks.networks.conv_maps import ConvFeatures, open_maps
from tasks.networks.defaults import defaults_of

logger = logging.getLogger("stages")

RELEASE_SCALE, RELEASE_LONGEST = 600, 1000  # lib/fast_rcnn/config.py of rbgirshick/fast-rcnn: SCALES, MAX_SIZE
RELEASE_LR_STEP = 30000  # models/*/solver.prototxt of rbgirshick/fast-rcnn


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


class MapTraining(ImageScale, Training):
    """A stage that trains on the maps of whole training images. The trunk makes the maps, or they are cached."""

    resolved = (*ImageScale.resolved, "light")

    freeze = parameters.choice(
        "first", ("none", "first", "all"), "fast", "freeze", "conv layers that are not trained; all: training reads cached maps"
    )
    mirror = mirror_setting()
    seed = parameters.seed()
    readers = parameters.integer(1, "run", "readers", "processes that read training images ahead", minimum=1, significant=False)
    tensorboard = parameters.text("", "run", "tensorboard", "folder for TensorBoard's logs; empty: none", significant=False)

    def train_index(self) -> IndexDataset:
        return self.clone(IndexDataset, split=self.train_split)

    def frozen_maps(self) -> dict[str, CachedTask]:
        """The cached maps to train on, if the trunk keeps its first weights."""
        return {"maps": self.maps_of(ConvFeatures, self.train_split)} if self.freeze == "all" else {}

    def settle(self, iterations: int, learning_rate: float, lr_step: int, release_lr_step: int, *faster: str) -> dict:
        """The learning rates of a training, and the step at which they fall; an argument of 0 means the default.

        The defaults depend on the backbone and the number of steps. `faster` names the other rates that the training needs.
        """
        defaults = defaults_of(self.backbone)
        rates = {name: getattr(defaults, name) for name in faster}
        lr_step = lr_step or min(release_lr_step, max(1, iterations * 3 // 4))
        return {"learning_rate": learning_rate or defaults.rate, "lr_step": lr_step, **rates}

    def map_inputs(self, split, maps: Artefact | None) -> Callable[[Iterator], Iterator]:
        """A function from samples to their inputs: the cached maps or, without `maps`, the pixels, which are read ahead."""
        from pipeline.networks.map_inputs import MapInput
        from pipeline.networks.whole_images import Scaling

        shorter, longest = self.sides
        if maps:
            store = open_maps(maps, split.images)

            def from_cache(samples: Iterator) -> Iterator:
                for sample in samples:
                    stored = store.read(sample.number, shorter, sample.mirrored)
                    yield MapInput(None, stored.cells, stored.scaling)

            return from_cache
        root = self.train_index().root
        start_pool(self.readers)

        def from_pixels(samples: Iterator) -> Iterator:
            records = (split.images[sample.number] for sample in samples)
            for pixels in run_ahead(_read, ((root, record) for record in records), self.readers):
                yield MapInput(pixels, None, Scaling.of(*pixels.shape[:2], shorter, longest))

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


@contextlib.contextmanager
def scalar_log(folder: str, label: str) -> Iterator[Callable | None]:
    """Yields a function that writes scalars for TensorBoard into `folder`/`label`; None without a folder."""
    if not folder:
        yield None
        return
    from pipeline.errors import PipelineError

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PipelineError(f"--tensorboard {folder}: TensorBoard is not installed ({error}); pip install tensorboard") from error
    with SummaryWriter(str(Path(folder) / label)) as writer:
        def log(step: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        yield log
