"""Training a region proposal network (Ren et al. 2015, section 3.1.3), alone: anchors of one image per step, or of several.

The map of an image comes from the trunk, which then learns too, or, where the trunk is frozen, from a cache of maps.

Shape shorthand: N anchors of an image, n objects, R sampled anchors.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import boxes as box_algebra
from pipeline.datasets.records import ImageRecord
from pipeline.errors import PipelineError
from pipeline.faster_rcnn.anchors import NOTHING, assign_targets, generate_anchors, sample_anchors
from pipeline.faster_rcnn.rpn import HIDDEN, LOSSES, OTHERS_HIDDEN, RPN, rpn_loss
from pipeline.networks.backbones import STRIDE, Backbone, make_backbone
from pipeline.networks.compute import mixed_precision
from pipeline.networks.map_inputs import (
    CALIBRATION_STEPS,
    ImageDraw,
    ImageOrder,
    Inputs,
    MapInput,
    map_of,
    mirror_record,
    read_ahead,
)
from pipeline.networks.ranks import part_of_each
from pipeline.networks.sgd import parameter_groups
from pipeline.networks.training import TrainingRun, train
from pipeline.networks.weights import load_tensors
from pipeline.networks.whole_images import Scaling
from pipeline.networks.without_weights import without_weights
from pipeline.seeding import derive_seed, make_generator


@dataclass(frozen=True)
class AnchorLayout:
    """The anchors of each cell: `scales` in units of 16 pixels, `ratios` of height to width, `stride` pixels per cell."""

    scales: tuple[float, ...]
    ratios: tuple[float, ...]
    stride: int = STRIDE

    @property
    def sides(self) -> np.ndarray:
        """Width and height of each anchor in pixels of the scaled image: [A x 2]."""
        anchors = generate_anchors(self.scales, self.ratios)
        return anchors[:, 2:] - anchors[:, :2]


def make_rpn(backbone: Backbone, layout: AnchorLayout) -> RPN:
    """A network for the maps of `backbone`, with random weights drawn from torch's generator."""
    hidden = HIDDEN.get(backbone.base, OTHERS_HIDDEN)
    return RPN(backbone.view.channels, hidden, layout.scales, layout.ratios, layout.stride)


def restore_rpn(tensors: dict[str, Tensor], backbone: str, layout: AnchorLayout, source: str) -> RPN:
    """The network with these `tensors`. Raises PipelineError, naming `source`, where they do not fit."""
    with without_weights():
        sizes = make_backbone(backbone)
    rpn = make_rpn(sizes, layout)
    load_tensors(rpn, tensors, source)
    return rpn


def without_difficult(image: ImageRecord) -> ImageRecord:
    """The record without its difficult objects, which the release does not train on (`pascal_voc.py`).

    It keeps its regions to ignore, which no training takes for objects.
    """
    return image.select(image.ignored | ~image.difficult)


def anchor_losses(
    scores: Tensor, deltas: Tensor, anchors: np.ndarray, objects: np.ndarray, *, size: tuple[int, int],
    generator: np.random.Generator, ignored: np.ndarray = NOTHING,
) -> Tensor:
    """The two losses [2] of a sample of the anchors of one image, per anchor of the sample.

    `scores` [N], `deltas` [N x 4], `anchors` [N x 4], `objects` [n x 4] and the regions `ignored` [r x 4] in pixels of the scaled
    image, which is `size` (height, width).
    """
    labels, nearest = assign_targets(anchors, objects, *size, ignored=ignored)
    positive, negative = sample_anchors(labels, generator)
    rows = np.concatenate([positive, negative])
    targets = np.zeros((len(rows), 4), np.float32)
    if len(positive):
        targets[: len(positive)] = box_algebra.encode(anchors[positive], objects[nearest[positive]].astype(np.float64))
    chosen = torch.from_numpy(rows).to(scores.device)
    is_object = torch.arange(len(rows), device=scores.device) < len(positive)
    target = torch.from_numpy(targets).to(scores.device)
    return rpn_loss(scores[chosen].float(), deltas[chosen].float(), is_object, target) / max(1, len(rows))


def anchors_that_fit(layout: AnchorLayout, scalings: Sequence[Scaling]) -> np.ndarray:
    """Whether each anchor lies wholly inside each scaled image around one of its cells: bool [images x A]."""
    anchors = generate_anchors(layout.scales, layout.ratios)
    # Of the first cells around which it does not reach out on the left and at the top; others are further to the right and below.
    ends = anchors[:, 2:] + layout.stride * np.ceil(np.maximum(-anchors[:, :2], 0) / layout.stride)
    return np.array([(ends <= scaling.size[::-1]).all(axis=1) for scaling in scalings]).reshape(len(scalings), -1)


def misfits(layout: AnchorLayout, images: Sequence[ImageRecord], scalings: Sequence[Scaling]) -> list[str]:
    """How the anchors' shapes do not suit the data set, as sentences; empty where they do.

    Raises PipelineError when no image has room for a single anchor: there would be nothing to train on.
    """
    sides, fits = layout.sides, anchors_that_fit(layout, scalings)
    names = [f"{width:.0f} x {height:.0f}" for width, height in sides]
    if not fits.any():
        largest = max(scaling.size for scaling in scalings)
        raise PipelineError(
            f"no anchor ({', '.join(names)} pixels) fits into any scaled image ({largest[1]} x {largest[0]} at most): lower "
            "--anchor-scales, or raise --fast-scale"
        )
    faults = []
    never = [names[number] for number in np.flatnonzero(~fits.any(axis=0))]
    if never:
        faults.append(f"anchors of {', '.join(never)} pixels fit into no scaled image and learn nothing; lower --anchor-scales")
    boxes = np.concatenate([scaling.apply(image.without_ignored().boxes) for image, scaling in zip(images, scalings)])
    if len(boxes):
        object_sides = np.sqrt(box_algebra.area(boxes))
        anchor_sides = np.sqrt(sides.prod(axis=1))
        if object_sides.max() < anchor_sides.min():
            faults.append(
                f"all objects are smaller ({object_sides.max():.0f} pixels at most in scaled images) than the smallest anchor "
                f"({anchor_sides.min():.0f}); lower --anchor-scales, or raise --fast-scale"
            )
        elif object_sides.min() > anchor_sides.max():
            faults.append(
                f"all objects are larger ({object_sides.min():.0f} pixels and more in scaled images) than the largest anchor "
                f"({anchor_sides.max():.0f}); raise --anchor-scales, or lower --fast-scale"
            )
    return faults


def only_difficult(image: ImageRecord) -> bool:
    """Whether the image has objects, and all of them are difficult."""
    return bool(len(image.difficult) and image.difficult.all())


class AnchorSampler:
    """Draws the images of each step and samples their anchors.

    Images without room for an anchor are left out, and images with difficult objects alone, whose anchors would all be background
    (`filter_roidb` in lib/fast_rcnn/train.py of rbgirshick/py-faster-rcnn).
    NOTE: that release leaves out images without any object, too. Here they are background, which is what their owner says.
    """

    def __init__(
        self, images: Sequence[ImageRecord], scalings: Sequence[Scaling], layout: AnchorLayout, *, mirror: bool,
        images_a_step: int, seed: int, scales: Sequence[int] = (),
    ):
        self.images, self.seed = [without_difficult(image) for image in images], seed
        fitting = np.flatnonzero(anchors_that_fit(layout, scalings).any(axis=1)).tolist()
        usable = [number for number in fitting if not only_difficult(images[number])]
        if not usable:
            raise PipelineError(
                f"none of the {len(images)} training images can train the proposal network: their objects are all marked "
                "difficult, or no anchor fits into the image; clear the marks, or lower --anchor-scales"
            )
        self.num_usable = len(usable)
        self.order = ImageOrder(usable, mirror, images_a_step, seed, scales=scales)

    def record(self, turn: ImageDraw) -> ImageRecord:
        """The record of the image, or of its mirror."""
        image = self.images[turn.number]
        return mirror_record(image) if turn.mirrored else image

    def losses(
        self, rpn: RPN, outputs: tuple[Tensor, Tensor], turn: ImageDraw, scaling: Scaling, cells: tuple[int, ...]
    ) -> Tensor:
        """`anchor_losses` of the `outputs` of `rpn` for the image's map of `cells` (rows, columns)."""
        record, generator = self.record(turn), make_generator(self.seed, "anchors", turn.place)
        objects, ignored = scaling.apply(record.without_ignored().boxes), scaling.apply(record.ignored_boxes)
        return anchor_losses(
            *outputs, rpn.anchors(*cells), objects, size=scaling.size, generator=generator, ignored=ignored
        )


def train_rpn(
    backbone: Backbone, run: TrainingRun, *, sampler: AnchorSampler, layout: AnchorLayout, inputs: Inputs, rate: float = 1.0,
    light: bool = False,
) -> tuple[RPN, np.ndarray]:
    """Trains a region proposal network, and `backbone` in place where its maps are not cached; returns it and the losses of each
    step, float32 [iterations x 2].

    `inputs` gives what to make the map of each image from; it may read ahead. The new layers learn `rate` times as fast as the
    trunk. With `light` the trunk sees images in changing light.
    """
    device, precision = run.device, run.precision
    torch.manual_seed(derive_seed(run.seed, "rpn"))
    rpn = make_rpn(backbone, layout)
    if run.start:
        run.start.load("rpn", rpn)
        if "trunk" in run.start.networks:
            run.start.load("trunk", backbone)
    model = nn.ModuleDict({"trunk": backbone.trunk, "rpn": rpn}).to(device).to(memory_format=torch.channels_last)
    images_a_step = sampler.order.images_a_step
    batches = read_ahead(sampler.order.draw, inputs, images_a_step, run.seed if light else None)

    def losses_of_image(turn: ImageDraw, map_input: MapInput) -> Tensor:
        with mixed_precision(device, precision):
            values = map_of(backbone, map_input, turn.mirrored, device, precision)
            outputs = rpn(values)
        return sampler.losses(rpn, outputs, turn, map_input.scaling, values.shape[1:]) / images_a_step

    if backbone.view.standardise and not run.start:
        calibrate_rpn(rpn, backbone, batches, device, precision)
    losses = train(
        model, run, groups=parameter_groups(backbone.trunk) + parameter_groups(rpn, rate),
        batches=partial(batches, ranks=run.ranks), losses_of=part_of_each(losses_of_image), names=LOSSES,
        images_a_step=images_a_step,
    )
    return rpn, losses


def calibrate_rpn(rpn: RPN, backbone: Backbone, batches: Callable[[int], Iterator], device: torch.device, precision: str) -> None:
    """Standardises what `rpn` sees, over the images of the first steps."""
    few = chain.from_iterable(islice(batches(0), CALIBRATION_STEPS))
    with torch.no_grad(), mixed_precision(device, precision):
        rpn.calibrate([map_of(backbone, map_input, turn.mirrored, device, precision) for turn, map_input in few])
