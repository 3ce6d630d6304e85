"""What segmentation is trained on: whole images of their own size with the class of each pixel, or single pixels for patches.

Shape shorthand: H, W height and width of an image; K classes; P pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.datasets.masks import VOID
from pipeline.datasets.records import ImageRecord
from pipeline.errors import PipelineError
from pipeline.images.light import draw_light
from pipeline.networks.backbones import MapView
from pipeline.networks.map_inputs import ImageDraw, ImageOrder
from pipeline.networks.whole_images import Light, Scaling, image_tensor
from pipeline.prefetch import prefetch
from pipeline.seeding import make_generator

Read = Callable[[ImageRecord], np.ndarray]


@dataclass(frozen=True)
class Example:
    """An image in training: float32 `pixels` [1 x 3 x H x W], normalised; `labels` int64 [1 x H x W], VOID where unknown.

    `turn` says which image and mirror it is.
    """

    pixels: Tensor
    labels: Tensor
    turn: ImageDraw


def network_input(pixels: np.ndarray, view: MapView, *, mirror: bool = False, light: Light | None = None) -> Tensor:
    """The network's input [1 x 3 x H x W] of an image, uint8 RGB [H x W x 3], at its own size."""
    size = pixels.shape[0], pixels.shape[1]
    plain = MapView(view.channels, stride=1, norm=view.norm)
    return image_tensor(pixels, Scaling(size, (1.0, 1.0)), plain, torch.device("cpu"), mirror=mirror, light=light)


class Examples:
    """The examples of each step: all images in random order, and with `mirror` their mirrors; with `light` in changing light.

    `read` gives an image's pixels, `read_labels` its label map, uint8 [H x W].
    """

    def __init__(
        self, images: Sequence[ImageRecord], read: Read, read_labels: Read, *, view: MapView, seed: int, images_a_step: int,
        mirror: bool, light: bool,
    ):
        if not len(images):
            raise PipelineError("segmentation: no training image has a label map; add masks (SegmentationClass), or choose "
                                "another training split")
        self.images, self.read, self.read_labels = images, read, read_labels
        self.view, self.seed, self.light = view, seed, light
        self.order = ImageOrder(range(len(images)), mirror, images_a_step, seed)

    def example(self, turn: ImageDraw, light: Light | None = None) -> Example:
        """The image of a `turn`, in `light` if there is one."""
        record = self.images[turn.number]
        pixels, labels = self.read(record), self.read_labels(record)
        if labels.shape != pixels.shape[:2]:
            raise PipelineError(f"image {record.id}: the label map is {labels.shape[1]} x {labels.shape[0]}, the image "
                                f"{pixels.shape[1]} x {pixels.shape[0]}; replace one of them")
        labels = labels[:, ::-1] if turn.mirrored else labels
        values = network_input(pixels, self.view, mirror=turn.mirrored, light=light)
        return Example(values, torch.from_numpy(labels.astype(np.int64))[None], turn)

    def step(self, step: int) -> list[Example]:
        return [self.example(turn, self._light(turn)) for turn in self.order.draw(step)]

    def ahead(self, first: int) -> Iterator[list[Example]]:
        """The examples of the steps from `first` on, made in a separate thread."""
        return prefetch(map(self.step, _from(first)))

    def each(self, at_most: int) -> Iterator[Example]:
        """The first images, as they are."""
        for number in range(min(at_most, len(self.images))):
            yield self.example(ImageDraw(number, False, 0))

    def _light(self, turn: ImageDraw) -> Light | None:
        if not self.light:
            return None
        gain, offset = draw_light(make_generator(self.seed, "light", turn.place), 1)
        return gain[0], offset[0]


def _from(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1


def draw_pixels(labels: np.ndarray, count: int, weights: np.ndarray | None, generator: np.random.Generator) -> np.ndarray:
    """`count` labelled pixels of a label map [H x W]: rows and columns, int64 [P x 2]; none where all is void.

    With `weights` [K] a class is drawn the more often, the larger its weight: balancing by sampling (Farabet et al. 2013).
    """
    places = np.flatnonzero(labels != VOID)
    if not len(places):
        return np.zeros((0, 2), np.int64)
    if weights is None:
        chosen = places[generator.integers(len(places), size=count)]
    else:
        shares = np.cumsum(np.asarray(weights, np.float64)[labels.reshape(-1)[places]])
        if shares[-1] <= 0:
            return np.zeros((0, 2), np.int64)
        numbers = np.searchsorted(shares, generator.random(count) * shares[-1], side="right")
        chosen = places[np.minimum(numbers, len(places) - 1)]
    return np.stack(np.divmod(chosen, labels.shape[1]), axis=1)
