"""What networks on whole images are trained on: which images a step sees, and their maps, made by the trunk or cached.

Shape shorthand: D channels, h x w cells of a map.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.datasets.records import ImageRecord
from pipeline.images.light import draw_light
from pipeline.networks.backbones import Backbone
from pipeline.networks.compute import DTYPES
from pipeline.networks.ranks import ALONE, Ranks
from pipeline.networks.whole_images import Light, Scaling, conv_map, mirror_boxes
from pipeline.prefetch import prefetch
from pipeline.seeding import make_generator

CALIBRATION_STEPS = 4


@dataclass(frozen=True)
class MapInput:
    """What an image's map is made from: pixels by the trunk, or a cached map. `scaling` leads to the scaled image.

    The trunk sees the pixels in `light`, if there is one.
    """

    pixels: np.ndarray | None
    cached: np.ndarray | None
    scaling: Scaling
    light: Light | None = None


OF_ANOTHER_RANK = MapInput(None, None, Scaling.of(1, 1, 1, 1))


class OfImage(Protocol):
    """What a step needs of one image: its number, whether it is mirrored, and its shorter side (0: the only scale)."""

    @property
    def number(self) -> int: ...

    @property
    def mirrored(self) -> bool: ...

    @property
    def scale(self) -> int: ...


Sample = TypeVar("Sample", bound=OfImage)
Inputs = Callable[[Iterable[OfImage]], Iterator[MapInput]]


@dataclass(frozen=True)
class ImageDraw:
    """An image's turn: its `place` in the order of all turns seeds its random draws. A `scale` of 0 is the only one."""

    number: int
    mirrored: bool
    place: int
    scale: int = 0


class ImageOrder:
    """Repeats the images `numbers`, and with `mirror` their mirrors, in a new random order in every round.

    Each turn has one of `scales`, drawn at random, if there are any (Girshick 2015, section 2.3).
    """

    def __init__(
        self, numbers: Sequence[int], mirror: bool, images_a_step: int, seed: int, *, scales: Sequence[int] = ()
    ):
        self.turns = [(number, mirrored) for mirrored in ((False, True) if mirror else (False,)) for number in numbers]
        self.images_a_step, self.seed, self.scales = images_a_step, seed, scales
        self._order = lru_cache(2)(self._shuffle)

    def draw(self, step: int) -> list[ImageDraw]:
        """The images of a step; any step can be drawn alone."""
        places = range(step * self.images_a_step, (step + 1) * self.images_a_step)
        epochs = [divmod(place, len(self.turns)) for place in places]
        turns = [self.turns[self._order(epoch)[rest]] for epoch, rest in epochs]
        return [ImageDraw(number, mirrored, place, self._scale(place)) for (number, mirrored), place in zip(turns, places)]

    def _scale(self, place: int) -> int:
        return int(make_generator(self.seed, "scale", place).choice(self.scales)) if self.scales else 0

    def _shuffle(self, epoch: int) -> np.ndarray:
        return make_generator(self.seed, "image order", epoch).permutation(len(self.turns))


def mirror_record(image: ImageRecord) -> ImageRecord:
    """The record of the mirrored image."""
    return replace(image, boxes=mirror_boxes(image.boxes, image.width))


def read_ahead(
    draw: Callable[[int], list[Sample]], inputs: Inputs, images_a_step: int, light_seed: int | None = None
) -> Callable[..., Iterator[list[tuple[Sample, MapInput]]]]:
    """The `batches` of `training.train`: what each step needs of its images, and their inputs, made in a separate thread.

    With `light_seed` the light changes from turn to turn (`pipeline.images.light`). Of several `ranks` each reads its own images;
    those of the others are `OF_ANOTHER_RANK`.
    """

    def in_light(map_input: MapInput, turn: int) -> MapInput:
        if light_seed is None:
            return map_input
        gain, offset = draw_light(make_generator(light_seed, "light", turn), 1)
        return replace(map_input, light=(gain[0], offset[0]))

    def batches(first: int, ranks: Ranks = ALONE) -> Iterator[list[tuple[Sample, MapInput]]]:
        def work():
            steps, again = itertools.tee(draw(step) for step in itertools.count(first))
            read = inputs(sample for drawn in steps for part, sample in enumerate(drawn) if ranks.owns(part))
            for step, drawn in enumerate(again, first):
                turn = step * images_a_step
                yield [
                    (sample, in_light(next(read), turn + part) if ranks.owns(part) else OF_ANOTHER_RANK)
                    for part, sample in enumerate(drawn)
                ]

        return prefetch(work())

    return batches


def map_of(backbone: Backbone | None, map_input: MapInput, mirrored: bool, device: torch.device, precision: str) -> Tensor:
    """The map [D x h x w] of one image; `backbone` is not needed for a cached one."""
    if map_input.cached is not None:
        return torch.from_numpy(map_input.cached).to(device, DTYPES[precision]).permute(2, 0, 1)
    assert backbone is not None  # an image without a cached map has pixels, for the trunk
    assert map_input.pixels is not None
    return conv_map(backbone, map_input.pixels, map_input.scaling, device, mirror=mirrored, light=map_input.light)
