"""What a step of training sees: images and their objects, as torchvision's detectors take them.

Each turn of an image has its own generator of random choices, so that a resumed run sees what an undisturbed one does.

Shape shorthand: M objects.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor

from pipeline.datasets.instances import object_masks
from pipeline.datasets.records import ImageRecord
from pipeline.images.light import draw_light
from pipeline.later_detectors.augmentation import Sample, augment
from pipeline.networks.backbones import Normalisation
from pipeline.networks.map_inputs import ImageDraw, ImageOrder
from pipeline.networks.whole_images import mirror_boxes
from pipeline.prefetch import prefetch
from pipeline.seeding import make_generator

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


@dataclass(frozen=True)
class Sources:
    """Functions from a record to its pixels, uint8 [height x width x 3], and to its instance mask, uint8 [height x width]."""

    pixels: Callable[[ImageRecord], np.ndarray]
    instances: Callable[[ImageRecord], np.ndarray] | None = None


@dataclass(frozen=True)
class Views:
    """How images are changed: mirrored, in changing light (`pipeline.images.light`), and as SSD does (`augmentation`)."""

    mirror: bool = True
    light: bool = False
    augment: bool = False


class DetectionBatches:
    """The batches of all steps. `norm` is the trunk's, for the light; with `sources.instances` objects have masks.

    `trains_on_difficult`: SSD's release trains on difficult objects as well. Images whose objects have all been left out are
    background alone.
    """

    def __init__(
        self, images: Sequence[ImageRecord], sources: Sources, views: Views, *, images_a_step: int, seed: int,
        norm: Normalisation, trains_on_difficult: bool = False,
    ):
        self.images, self.sources, self.views, self.seed, self.norm = images, sources, views, seed, norm
        self.order = ImageOrder(range(len(images)), views.mirror, images_a_step, seed)
        self.trains_on_difficult = trains_on_difficult

    def __call__(self, first: int) -> Iterator[Batch]:
        """The batches of the steps from `first` on, made in a separate thread."""
        return prefetch(map(self.batch, count(first)))

    def batch(self, step: int) -> Batch:
        """The images of a step and their objects."""
        images, targets = zip(*map(self.view, self.order.draw(step)), strict=True)
        return list(images), list(targets)

    def view(self, turn: ImageDraw) -> tuple[Tensor, dict[str, Tensor]]:
        """One image, float32 [3 x height x width] in 0..1, and its `boxes` [M x 4], `labels` [M] from 1 on, and `masks`."""
        record, generator = self.images[turn.number], make_generator(self.seed, "view", turn.place)
        rows = np.flatnonzero(~record.ignored if self.trains_on_difficult else record.counted)
        pixels = self.sources.pixels(record).astype(np.float32) / 255
        masks = object_masks(self.sources.instances(record), record.boxes[rows]) if self.sources.instances else None
        sample = Sample(pixels, record.boxes[rows].astype(np.float32), rows)
        if self.views.augment:
            sample = augment(sample, np.array(self.norm.mean) / 255, generator)
        pixels, boxes = sample.pixels, sample.boxes
        if self.views.light:
            pixels = self._relight(pixels, generator)
        if turn.mirrored:
            pixels, boxes = pixels[:, ::-1], mirror_boxes(boxes, pixels.shape[1])
            masks = None if masks is None else masks[:, :, ::-1]
        wide = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # a patch may cut a box down to nothing
        target = {"boxes": torch.from_numpy(boxes[wide]), "labels": torch.from_numpy(record.labels[sample.objects[wide]] + 1)}
        if masks is not None:
            target["masks"] = torch.from_numpy(np.ascontiguousarray(masks, np.uint8))
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), target

    def _relight(self, pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        gain, offset = draw_light(generator, 1)
        mean, deviation = (np.array(values, np.float32) / 255 for values in (self.norm.mean, self.norm.std))
        return ((pixels - mean) * gain + offset * deviation + mean).astype(np.float32)
