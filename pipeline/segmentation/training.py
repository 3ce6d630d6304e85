"""Training a segmentation network on whole images of their own size.

The loss of a pixel is the softmax's; void pixels have none. `loss` "mean" takes the mean over an image's labelled pixels, "sum"
their sum, as the release of FCN does.

The two are equivalent up to the rate: a sum over p pixels at rate r is a mean at rate p r. The release's 1e-10 for images of
500 x 375 pixels is 1.9e-5 for the mean. Momentum m moves 1 / (1 - m) times as far as one step: 0.99 is worth ten times 0.9.
With "sum" large images count more.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.datasets.masks import VOID
from pipeline.datasets.records import ImageRecord
from pipeline.errors import PipelineError
from pipeline.networks.backbones import Backbone
from pipeline.networks.compute import mixed_precision
from pipeline.networks.ranks import Part
from pipeline.networks.sgd import MOMENTUM, parameter_groups
from pipeline.networks.training import TrainingRun, train
from pipeline.seeding import derive_seed, make_generator
from pipeline.segmentation.boxes import BoxExamples, BoxSettings
from pipeline.segmentation.layout import FULL_RESOLUTION, PATCHES, SKIPS, Layout
from pipeline.segmentation.map_cache import MapCache
from pipeline.segmentation.network import SegmentationNetwork
from pipeline.segmentation.sampling import Example, Examples, draw_pixels

ALL, LAST = TRAINED = "all", "last"  # which layers are trained
MEAN, SUM = LOSSES = "mean", "sum"
CALIBRATION_IMAGES = 8  # over which maps are standardised, and the statistics of batch normalisation taken


@dataclass(frozen=True)
class SegmenterSettings:
    """How a segmentation network is trained.

    `trained`: "all" layers from the first on that the backbone does not freeze on whole images, or the "last": those that the
    backbone does not have. New layers learn `rate` times as fast as the rest. `loss`: "mean" or "sum" over pixels. `weights` [K]
    multiply the losses of classes. `mirror` and `light`: whether images are mirrored, and seen in changing light.
    `patches`: pixels of an image that a step of kind "patches" trains on. `first` are the tensors of the stage before, that
    FCN-16s and 8s begin from. `map_megabytes`: memory for cached maps where the backbone is not trained.
    With `boxes` the network is trained on boxes of images, as DeconvNet.
    """

    trained: str = ALL
    rate: float = 1.0
    loss: str = MEAN
    momentum: float = MOMENTUM
    images_a_step: int = 1
    weights: np.ndarray | None = None
    mirror: bool = True
    light: bool = False
    patches: int = 64
    first: Mapping[str, Tensor] | None = None
    map_megabytes: float = 512.0
    boxes: BoxSettings | None = None

    def __post_init__(self):
        for value, values in (self.trained, TRAINED), (self.loss, LOSSES):
            if value not in values:
                raise PipelineError(f"segmentation: {value!r} is none of {', '.join(values)}")


def train_segmenter(
    backbone: Backbone, layout: Layout, run: TrainingRun, *, images: Sequence[ImageRecord],
    read: Callable[[ImageRecord], np.ndarray], read_labels: Callable[[ImageRecord], np.ndarray], settings: SegmenterSettings,
) -> tuple[SegmentationNetwork, np.ndarray]:
    """Trains `backbone` in place with new layers; returns the network and the loss of each step [iterations x 1].

    `images` are those that have a label map; `read` gives pixels, uint8 [H x W x 3], `read_labels` the classes, uint8 [H x W].
    """
    device = run.device
    torch.manual_seed(derive_seed(run.seed, "segmentation"))
    model = SegmentationNetwork(backbone, layout)
    known = frozenset[str]() if settings.first is None else model.begin_from(dict(settings.first), "the first weights")
    sampling: dict[str, Any] = {
        "view": backbone.view, "seed": run.seed, "images_a_step": settings.images_a_step, "mirror": settings.mirror,
        "light": settings.light,
    }
    if settings.boxes:
        examples: Examples = BoxExamples(images, read, read_labels, boxes=settings.boxes, **sampling)
    else:
        examples = Examples(images, read, read_labels, **sampling)
    model = model.to(device).to(memory_format=torch.channels_last)
    if settings.first is None or layout.kind in SKIPS:
        model.calibrate([example.pixels.to(device) for example in examples.each(CALIBRATION_IMAGES)], known)
    is_frozen = settings.trained == LAST or layout.kind == FULL_RESOLUTION
    backbone.requires_grad_(not is_frozen)
    for module in backbone.trunk[: backbone.frozen]:
        module.requires_grad_(False)
    passes = _Passes(model, run, settings, is_frozen)
    groups = [*parameter_groups(backbone), *parameter_groups(model.method, settings.rate)]

    def batches(first: int) -> Iterator[tuple[int, list[Example]]]:
        return zip(count(first), examples.ahead(first))

    losses = train(
        model, run, groups=groups, batches=batches, losses_of=passes.losses_of, images_a_step=settings.images_a_step,
        momentum=settings.momentum,
    )
    return model, losses


class _Passes:
    """The forward passes of a training."""

    def __init__(self, model: SegmentationNetwork, run: TrainingRun, settings: SegmenterSettings, is_frozen: bool):
        self.model, self.run, self.settings, self.is_frozen = model, run, settings, is_frozen
        # Images in another light in each turn, and boxes that are drawn, are not met again.
        self.cache = MapCache(0 if settings.light or settings.boxes else settings.map_megabytes)
        self.weights = None if settings.weights is None else torch.as_tensor(settings.weights, dtype=torch.float32).to(run.device)

    def losses_of(self, numbered: tuple[int, list[Example]]) -> list[Part]:
        step, examples = numbered
        return [partial(self._share, example, (step, number), len(examples)) for number, example in enumerate(examples)]

    def _share(self, example: Example, place: tuple[int, int], images: int) -> Tensor:
        loss_of = self._patch_loss if self.model.layout.kind == PATCHES else self._loss
        return loss_of(example, place) / images

    def scores(self, example: Example) -> Tensor:
        """The scores [1 x K x H x W] of an example's pixels."""
        size = example.labels.shape[1], example.labels.shape[2]
        with mixed_precision(self.run.device, self.run.precision):
            return self.model.decode(self._maps(example), size)

    def _maps(self, example: Example) -> Any:
        def encode() -> Any:
            return self.model.encode(example.pixels.to(self.run.device), self.model.training and not self.is_frozen)

        if not self.is_frozen:
            return encode()
        with torch.no_grad():
            return self.cache.get((example.turn.number, example.turn.mirrored), encode)

    def _loss(self, example: Example, place: tuple[int, int]) -> Tensor:
        return pixel_loss(self.scores(example), example.labels.to(self.run.device), self.settings.loss, self.weights)

    def _patch_loss(self, example: Example, place: tuple[int, int]) -> Tensor:
        """The mean loss of some windows' centres. Weights make a class come more often, instead of counting more."""
        method, labels = self.model.method, example.labels[0].numpy()
        generator = make_generator(self.run.seed, "pixels", *place)
        centres = draw_pixels(labels, self.settings.patches, self.settings.weights, generator)
        if not len(centres):
            return example.pixels.new_zeros((), requires_grad=True)
        windows = method.windows(example.pixels, torch.from_numpy(centres)).to(self.run.device)
        windows = windows.to(memory_format=torch.channels_last)
        with mixed_precision(self.run.device, self.run.precision), torch.set_grad_enabled(not self.is_frozen):
            features = method.features(self.model.backbone, windows)
        with mixed_precision(self.run.device, self.run.precision):
            scores = method.score(features)
        classes = torch.from_numpy(labels[tuple(centres.T)]).to(self.run.device)
        return nn.functional.cross_entropy(scores, classes)


def pixel_loss(scores: Tensor, labels: Tensor, loss: str = MEAN, weights: Tensor | None = None) -> Tensor:
    """The softmax loss of `scores` [1 x K x H x W] for `labels` [1 x H x W]: the sum over pixels, or the mean over labelled ones.

    `weights` [K] multiply the losses of classes; the mean is still over pixels. An image of void alone has the loss 0.
    """
    if scores.device.type != "cpu":
        scores, labels = rows_of_pixels(scores, labels)
    total = nn.functional.cross_entropy(scores, labels, weights, ignore_index=VOID, reduction="sum")
    return total if loss == SUM else total / (labels != VOID).sum().clamp(min=1)


def rows_of_pixels(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [1 x K x H x W] as [HW x K] and labels as [HW].

    NOTE: CUDA adds the losses of maps in the order in which its threads come, and those of rows always in the same.
    """
    return scores.flatten(2).transpose(1, 2).flatten(0, 1), labels.flatten()
