"""What the localiser sees and is trained to say: a window of an image, and the class and the box of its largest object.

A test image is seen whole, resized to a square.
NOTE: OverFeat and VGG crop the centre, which cuts objects at the edges; here a box maps back by two factors.

Training draws windows, as long as objects are few:
1. Draw an image, and one of its objects.
2. Draw a window that holds this object. It may be smaller or larger than the image; what is outside the image is 0.
3. Its target is the object of which most pixels are in the window, cut at the window's edges.
4. Draw another window if less than half of this object is inside (OverFeat leaves such windows out); after TRIES of them take
   the whole image.

Boxes are fractions of the window: (0, 0, 1, 1) is all of it. Shape shorthand: B windows a batch, S side of the network's input.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import boxes as box_algebra
from pipeline.datasets.records import ImageRecord
from pipeline.errors import PipelineError
from pipeline.images.light import relight
from pipeline.networks.backbones import Normalisation
from pipeline.networks.window_inputs import crop_batch
from pipeline.prefetch import prefetch
from pipeline.seeding import make_generator

TRIES = 20
LEAST_VISIBLE = 0.5  # Sermanet et al. 2014, section 4.2
LARGEST_WINDOW = 1.2  # ours: sides of the largest window in sides of the image
STRETCH = 1.25  # ours: a window's width over height is up to so many times the image's, or as much less


@dataclass(frozen=True)
class Views:
    """Windows of images: `image` int [B] indexes the images, `windows` int64 [B x 4] in pixels, which may reach beyond the image.

    `boxes` float32 [B x 4] and `labels` int64 [B] are the targets, in the mirrored window where `mirrored` [B].
    """

    image: np.ndarray
    windows: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    mirrored: np.ndarray


def usable_objects(record: ImageRecord) -> np.ndarray:
    """The indices of the objects that count: those that the evaluation counts and that have an area."""
    return np.flatnonzero(record.counted & (box_algebra.area(record.boxes) > 0))


def largest_object(record: ImageRecord) -> int | None:
    """The index of the object with the largest area, the first of equals. None if no object counts."""
    usable = usable_objects(record)
    return int(usable[box_algebra.area(record.boxes[usable]).argmax()]) if len(usable) else None


def to_fractions(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Boxes [N x 4] in pixels as fractions of their windows [N x 4]. Inverse of `from_fractions`."""
    return (boxes - _corners(windows)) / _sides(windows)


def from_fractions(fractions: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Boxes [N x 4] in pixels, from fractions of their windows [N x 4]. Inverse of `to_fractions`."""
    return fractions * _sides(windows) + _corners(windows)


def _corners(windows: np.ndarray) -> np.ndarray:
    return np.tile(windows[..., :2], 2)


def _sides(windows: np.ndarray) -> np.ndarray:
    return np.tile(windows[..., 2:] - windows[..., :2], 2)


def mirrored_fractions(fractions: np.ndarray) -> np.ndarray:
    """The same boxes [... x 4] in the mirrored window: the left edge becomes the right one."""
    return np.stack([1 - fractions[..., 2], fractions[..., 1], 1 - fractions[..., 0], fractions[..., 3]], axis=-1)


def whole_window(record: ImageRecord) -> np.ndarray:
    return np.array([0, 0, record.width, record.height])


def target_fractions(images: Sequence[ImageRecord]) -> np.ndarray:
    """The largest object's box in each image that has one, as fractions of the image: float32 [M x 4]."""
    places = ((record, largest_object(record)) for record in images)
    boxes = [to_fractions(record.boxes[place], whole_window(record)) for record, place in places if place is not None]
    return np.array(boxes, np.float32).reshape(-1, 4)


class WindowSampler:
    """Batches of `batch_size` windows, each mirrored with probability 1/2 if `mirror`.

    `smallest` is the shortest side of a window, in sides of the image. With `light` the light changes. Raises PipelineError when
    no image has an object, or a class has none.
    """

    def __init__(
        self, images: Sequence[ImageRecord], classes: Sequence[str], seed: int, *, batch_size: int, mirror: bool, smallest: float,
        light: bool,
    ):
        self.images, self.seed, self.batch_size = images, seed, batch_size
        self.mirror, self.smallest, self.light = mirror, smallest, light
        self.usable = [usable_objects(record) for record in images]
        self.numbers = np.array([number for number, usable in enumerate(self.usable) if len(usable)], np.int64)
        self.unused = len(images) - len(self.numbers)
        present = {int(images[number].labels[place]) for number in self.numbers for place in self.usable[number]}
        if missing := [name for label, name in enumerate(classes) if label not in present]:
            raise PipelineError(
                f"localisation: no training image has an object of {', '.join(missing)}; leave these classes out with --classes, "
                "or add images"
            )

    def draw(self, step: int) -> Views:
        """The windows of a step's batch."""
        generator = make_generator(self.seed, "windows", step)
        numbers = self.numbers[generator.integers(len(self.numbers), size=self.batch_size)]
        drawn = [self._draw_window(number, generator) for number in numbers]
        windows = np.stack([window for window, _, _ in drawn])
        boxes = to_fractions(np.stack([box for _, box, _ in drawn]), windows).astype(np.float32)
        mirrored = (generator.random(len(numbers)) < 0.5) & self.mirror
        boxes[mirrored] = mirrored_fractions(boxes[mirrored])
        return Views(numbers, windows, boxes, np.array([label for _, _, label in drawn], np.int64), mirrored)

    def targets(self, number: int) -> np.ndarray:
        """The boxes of the first `number` windows or some more, float32 [M x 4]: what the box head is trained to say."""
        steps = -(-number // self.batch_size)
        return np.concatenate([self.draw(step).boxes for step in range(steps)])

    def _draw_window(self, number: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
        """A window of image `number`, the visible box of its target in pixels of the image, and the target's label."""
        record, usable = self.images[number], self.usable[number]
        objects = record.boxes[usable].astype(np.float64)
        held = objects[generator.integers(len(objects))]
        for _ in range(TRIES):
            window = _window_around(held, np.array([record.width, record.height]), self.smallest, generator)
            visible = np.concatenate([np.maximum(objects[:, :2], window[:2]), np.minimum(objects[:, 2:], window[2:])], axis=1)
            areas = box_algebra.area(visible)
            target = int(areas.argmax())
            if areas[target] >= LEAST_VISIBLE * box_algebra.area(objects[target]):
                return window, visible[target], int(record.labels[usable[target]])
        target = int(box_algebra.area(objects).argmax())
        return whole_window(record), objects[target], int(record.labels[usable[target]])

    def alter(self, step: int, values: np.ndarray) -> None:
        """Changes the light of a step's normalised windows [B x S x S x 3] in place."""
        if self.light:
            relight(values, make_generator(self.seed, "light", step))


def _window_around(held: np.ndarray, size: np.ndarray, smallest: float, generator: np.random.Generator) -> np.ndarray:
    """A window, int64 [4], that holds the box `held` [4] of an image of `size` (width, height).

    A window smaller than the image is inside it; in a larger one the image is inside the window.
    """
    share, stretch = generator.uniform(smallest, LARGEST_WINDOW), STRETCH ** generator.uniform(-0.5, 0.5)
    sides = np.round(np.maximum(size * share * np.array([stretch, 1 / stretch]), np.ceil(held[2:]) - np.floor(held[:2])))
    first = np.where(sides <= size, np.maximum(0, np.ceil(held[2:]) - sides), size - sides)
    last = np.where(sides <= size, np.minimum(np.floor(held[:2]), size - sides), 0)
    corner = np.round(generator.uniform(first, last))
    return np.concatenate([corner, corner + sides]).astype(np.int64)


def view_batches(
    sampler: WindowSampler, read: Callable[[ImageRecord], np.ndarray], first: int, *, side: int, norm: Normalisation,
) -> Iterator[tuple[np.ndarray, Views]]:
    """Yields (inputs float32 [B x S x S x 3], views) for the steps from `first` on, without end, computed ahead."""

    def work() -> Iterator[tuple[np.ndarray, Views]]:
        step = first
        while True:
            views = sampler.draw(step)
            values = crop_batch(sampler.images, read, views.image, views.windows, views.mirrored, side=side, norm=norm)
            sampler.alter(step, values)
            yield values, views
            step += 1

    return prefetch(work())
