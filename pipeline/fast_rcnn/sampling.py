"""Regions for training Fast R-CNN: which images and which of their regions make each step's batch (section 2.3).

A batch holds N images and R regions, R / N of each image: 25 % at most with IoU >= 0.5 with an object, the others with IoU in
[0.1, 0.5), the background; no region twice, and fewer where an image has fewer. With hard examples it holds all regions of
its images. Images and their mirrors come in a new random order in every round. Any step can be drawn alone.

Label 0 is the background; label c + 1 is class c.

Shape shorthand: n candidates of one image (ground truth first), R regions of one image's share, C classes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import boxes as box_algebra
from pipeline.datasets.records import ImageRecord
from pipeline.errors import PipelineError
from pipeline.matching import match_boxes, trainable
from pipeline.networks.map_inputs import ImageDraw, ImageOrder, mirror_record
from pipeline.networks.whole_images import mirror_boxes
from pipeline.seeding import make_generator


@dataclass(frozen=True)
class SamplingSettings:
    """Defaults: lib/fast_rcnn/config.py of rbgirshick/fast-rcnn, TRAIN."""

    images: int = 2  # IMS_PER_BATCH
    regions: int = 128  # BATCH_SIZE, of all images together
    foreground_fraction: float = 0.25  # FG_FRACTION
    foreground_overlap: float = 0.5  # FG_THRESH and BBOX_THRESH: IoU >= this
    background_overlaps: tuple[float, float] = (0.1, 0.5)  # BG_THRESH_LO <= IoU < BG_THRESH_HI
    hard: bool = False  # whether all regions of an image are drawn, for the hardest of them to be chosen
    scales: tuple[int, ...] = ()  # shorter sides, of which each image gets one at random; none: the only one
    agnostic: bool = False  # whether boxes are the same for all classes, and so the normalisation of their targets

    @property
    def regions_of_image(self) -> int:
        return self.regions // self.images


@dataclass(frozen=True)
class RegionSample:
    """One image's share of a batch, in the pixels of the image, or of its mirror where `mirrored`.

    `boxes` float32 [R x 4]; `labels` int64 [R]; `targets` float32 [R x 4] are normalised, and 0 for the background.
    """

    number: int
    mirrored: bool
    boxes: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    scale: int = 0


@dataclass(frozen=True)
class Matches:
    """The candidates of one image and the object that each overlaps most: `overlap` [n] with it, `label` [n] its class + 1.

    `foreground` bool [n] marks those with IoU enough; for them `target` [n x 4] encodes the way to the object, elsewhere it is 0.
    """

    boxes: np.ndarray
    overlap: np.ndarray
    label: np.ndarray
    foreground: np.ndarray
    target: np.ndarray


def match(image: ImageRecord, proposals: np.ndarray, foreground_overlap: float) -> Matches:
    """Matches the ground truth and the `proposals` [n x 4] of an image to its objects.

    Proposals on regions to ignore are left out.

    NOTE: a box is as wide as its pixels here, as in rbgirshick/py-faster-rcnn; rbgirshick/fast-rcnn's targets take one off.
    """
    proposals, image = trainable(proposals, image), image.without_ignored()
    boxes = np.concatenate([image.boxes, proposals]).astype(np.float32)
    overlaps, label = match_boxes(boxes, image.boxes), np.zeros(len(boxes), np.int64)
    foreground, target = overlaps.at_least(foreground_overlap), np.zeros((len(boxes), 4), np.float32)
    if len(image.boxes):
        label = image.labels[overlaps.nearest] + 1
        target[foreground] = box_algebra.encode(boxes[foreground], image.boxes[overlaps.nearest[foreground]])
    return Matches(boxes, overlaps.largest, label, foreground, target)


def target_statistics(
    matches: Iterable[Matches], num_classes: int, mirror: bool, agnostic: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and deviation of each class's targets, float64 [C x 4], and their number [C] (`roidb.py` of rbgirshick/fast-rcnn).

    With `mirror` each counts with its mirror image, whose dx is the negative. With `agnostic` they are those of all classes
    together. A deviation of 0, of a single target say, is 1 here, so that it can be divided by.
    """
    count, total, squares = np.zeros(num_classes, np.int64), np.zeros((num_classes, 4)), np.zeros((num_classes, 4))
    for of_image in matches:
        rows = of_image.foreground
        np.add.at(count, of_image.label[rows] - 1, 1)
        np.add.at(total, of_image.label[rows] - 1, of_image.target[rows].astype(np.float64))
        np.add.at(squares, of_image.label[rows] - 1, of_image.target[rows].astype(np.float64) ** 2)
    examples = np.maximum(count, 1)[:, None]
    if agnostic:
        total, squares = (np.tile(values.sum(0), (num_classes, 1)) for values in (total, squares))
        examples = np.maximum(count.sum(), 1)
    means = total / examples
    if mirror:
        means[:, 0] = 0
    deviations = np.sqrt(np.maximum(squares / examples - means**2, 0))
    deviations[deviations < 1e-9] = 1
    return means, deviations, count


def is_background(matches: Matches, settings: SamplingSettings) -> np.ndarray:
    """Which of the candidates are background: bool [n]."""
    low, high = settings.background_overlaps
    return (matches.overlap >= low) & (matches.overlap < high) & ~matches.foreground


def draw_regions(
    matches: Matches, settings: SamplingSettings, generator: np.random.Generator, means: np.ndarray, deviations: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One image's share of a batch: boxes [R x 4], labels [R] and targets [R x 4] normalised by `means`, `deviations` [C x 4]."""
    size = settings.regions_of_image
    foreground, background = np.flatnonzero(matches.foreground), np.flatnonzero(is_background(matches, settings))
    wanted = min(round(size * settings.foreground_fraction), len(foreground))
    foreground = generator.choice(foreground, wanted, replace=False)
    background = generator.choice(background, min(size - wanted, len(background)), replace=False)
    rows = np.concatenate([foreground, background])
    labels = np.where(matches.foreground[rows], matches.label[rows], 0)
    targets = np.zeros((len(rows), 4), np.float32)
    classes = labels[:wanted] - 1
    targets[:wanted] = (matches.target[foreground] - means[classes]) / deviations[classes]
    return matches.boxes[rows], labels, targets


def all_regions(matches: Matches, means: np.ndarray, deviations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes [R x 4], labels [R] and targets [R x 4] of all candidates of an image, as `draw_regions` gives them of a few.

    Whatever is not foreground is background.
    """
    labels = np.where(matches.foreground, matches.label, 0)
    targets, rows = np.zeros_like(matches.boxes), np.flatnonzero(matches.foreground)
    targets[rows] = (matches.target[rows] - means[labels[rows] - 1]) / deviations[labels[rows] - 1]
    return matches.boxes, labels, targets


class RegionSampler:
    """Draws the batches of every step. `proposals(i)` gives the boxes [n x 4] of image i.

    `means` and `deviations` [C x 4] normalise the targets; `examples` [C] counts the examples behind them. `unused` counts the
    images without a region to train on, for example without objects; they are never drawn, as in the release.
    A class may have no examples. Raises PipelineError when no image has a region, and when R / N cannot be sampled.
    """

    def __init__(
        self, images: Sequence[ImageRecord], classes: Sequence[str], proposals: Callable[[int], np.ndarray], seed: int,
        *, mirror: bool, settings: SamplingSettings = SamplingSettings(),
    ):
        self.images, self.proposals, self.seed, self.settings = images, proposals, seed, settings
        size, rest = divmod(settings.regions, settings.images)
        if rest or round(size * settings.foreground_fraction) < 1:
            raise PipelineError(
                f"{settings.regions} regions of {settings.images} images a step: give a multiple of the images, "
                f"so many that {settings.foreground_fraction:.0%} of an image's share is a region"
            )
        usable = []

        def matches() -> Iterable[Matches]:
            for number in range(len(images)):
                of_image = self._match(number)
                if of_image.foreground.any() or is_background(of_image, settings).any():
                    usable.append(number)
                yield of_image

        statistics = target_statistics(matches(), len(classes), mirror, settings.agnostic)
        self.means, self.deviations, self.examples = statistics
        self.unused = len(images) - len(usable)
        if not usable:
            least = min(settings.background_overlaps[0], settings.foreground_overlap)
            raise PipelineError(
                f"no region to train on in {len(images)} images: none has IoU >= {least} with an object; check the annotations, "
                "or have more regions proposed (--max-proposals, --rpn-proposals)"
            )
        self.order = ImageOrder(usable, mirror, settings.images, seed, scales=settings.scales)

    def draw(self, step: int) -> list[RegionSample]:
        """The batch of a step, image by image."""
        return [self._sample(turn) for turn in self.order.draw(step)]

    def _match(self, number: int) -> Matches:
        return match(self.images[number], self.proposals(number), self.settings.foreground_overlap)

    def _sample(self, turn: ImageDraw) -> RegionSample:
        image, proposals = self.images[turn.number], self.proposals(turn.number)
        if turn.mirrored:
            image, proposals = mirror_record(image), mirror_boxes(proposals, image.width)
        matches = match(image, proposals, self.settings.foreground_overlap)
        if self.settings.hard:
            drawn = all_regions(matches, self.means, self.deviations)
        else:
            generator = make_generator(self.seed, "regions", turn.place)
            drawn = draw_regions(matches, self.settings, generator, self.means, self.deviations)
        return RegionSample(turn.number, turn.mirrored, *drawn, turn.scale)
