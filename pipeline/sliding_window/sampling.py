"""What the windows are trained on: tiles cut from scaled images, and what each window of a tile shows.

A tile is a part of a scaled image that holds 6 x 6 windows. Every window is labelled, so that negatives are taken on the fly:
some at random, some of those that the network judges worst at this moment (Sermanet et al. 2014, section 5).

Shape shorthand: B tiles of a step, T side of a tile, M windows of a tile, n objects of an image.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.records import ImageRecord
from pipeline.images.light import draw_light
from pipeline.images.resampling import resample
from pipeline.matching import match_boxes, on_ignored
from pipeline.networks.backbones import Normalisation
from pipeline.networks.map_inputs import ImageDraw, ImageOrder
from pipeline.networks.whole_images import Light, mirror_boxes
from pipeline.prefetch import prefetch
from pipeline.seeding import make_generator
from pipeline.sliding_window.layout import WindowLayout, scalings

POSITIONS = 6  # windows of a tile in each direction; a multiple of 3, see `WindowLayout.positions`
FILL = 0.65  # ours: the share of a window's side that the longer side of its object takes
# A window shows an object if its IoU with the square around it is 0.5; OverFeat's regressor sees windows from this overlap on.
POSITIVE, NEGATIVE = 0.5, 0.35
AIMED = 0.6  # ours: the share of tiles that are cut around an object of the image
STRETCH = 0.35  # ours: in training an object's scale differs from the ideal one by a factor of up to 2 ** 0.35
LEFT_OUT = -1  # label of a window that nothing is learnt from
EDGE_MEANS = np.array([(1 - FILL) / 2, (1 - FILL) / 2, (1 + FILL) / 2, (1 + FILL) / 2], np.float32)
EDGE_DEVIATION = 0.1


@dataclass(frozen=True)
class Tile:
    """A part of an image scaled by `factor`; (`x`, `y`) is its corner in the scaled image."""

    factor: float
    x: float
    y: float
    side: int

    def cut(self, pixels: np.ndarray, norm: Normalisation, light: Light | None = None) -> np.ndarray:
        """Its normalised pixels float32 [T x T x 3]; 0 beyond the image."""
        height, width = pixels.shape[:2]
        (left, right, x, columns), (top, bottom, y, rows) = self._along(self.x, width), self._along(self.y, height)
        margin = self._margin
        canvas = np.zeros((1, self.side + 2 * margin, self.side + 2 * margin, 3), np.float32)
        mean, std = np.array(norm.mean), np.array(norm.std)
        if light is not None:
            gain, offset = light
            mean, std = mean - offset * std / gain, std / gain
        if right > left and bottom > top:
            geometry = np.array([[left, top, right, bottom]]), np.array([[x, y]]), np.array([[columns, rows]])
            resample(pixels, geometry, np.array([False]), canvas, mean=mean, std=std)
        return canvas[0, margin:margin + self.side, margin:margin + self.side]

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [n x 4] of the image, in the tile."""
        corner = np.array([self.x, self.y, self.x, self.y])
        return (boxes * self.factor - corner).astype(np.float32)

    @property
    def _margin(self) -> int:
        # Whole pixels of the image are scaled, so that the scaled part is a little larger than the tile.
        return int(np.ceil(self.factor)) + 2

    def _along(self, corner: float, length: int) -> tuple[int, int, int, int]:
        """Of one direction: first and last source pixel, and where and how long they are in the canvas."""
        first = min(max(int(np.floor(corner / self.factor)), 0), length)
        last = min(max(int(np.ceil((corner + self.side) / self.factor)), first), length)
        start = round(first * self.factor - corner) + self._margin
        return first, last, start, max(1, round((last - first) * self.factor))


def draw_tile(image: ImageRecord, layout: WindowLayout, scales: Sequence[float], generator: np.random.Generator) -> Tile:
    """A random tile of `image`: around one of its objects at about that object's ideal scale, or anywhere at a random scale."""
    side = layout.length(POSITIONS)
    factors = [scaling.factors[0] for scaling in scalings(image.height, image.width, layout, tuple(scales))]
    objects = image.boxes[image.counted]
    aimed, stretch, scale, (x, y) = generator.random() < AIMED, generator.uniform(-1, 1), generator.random(), generator.random(2)
    if aimed and len(objects):
        box = objects[generator.integers(len(objects))]
        ideal = FILL * layout.side / max(box[2] - box[0], box[3] - box[1])
        factor = np.clip(ideal, min(factors), max(factors)) * 2 ** (STRETCH * stretch)
        # The object's centre lies anywhere in the tile, but so far inside that a window is around it.
        half = layout.side / 2
        centre = half + np.array([x, y]) * (side - 2 * half)
        corner = (box[:2] + box[2:]) / 2 * factor - centre
        return Tile(float(factor), float(corner[0]), float(corner[1]), side)
    factor = factors[int(scale * len(factors))] * 2 ** (STRETCH * stretch)
    corner = [_anywhere(length * factor, side, layout.frame, share) for length, share in ((image.width, x), (image.height, y))]
    return Tile(float(factor), float(corner[0]), float(corner[1]), side)


def _anywhere(length: float, side: int, frame: int, share: float) -> float:
    """A corner of a tile, so that the tile lies in the framed image, or the image in the tile, whichever is larger."""
    first, last = -frame, length + frame - side
    return first + share * (last - first)


def square_around(boxes: np.ndarray) -> np.ndarray:
    """The squares [n x 4] that ideal windows on these objects would be: FILL of the side is the object's longer side."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    half = size.max(axis=1, keepdims=True) / FILL / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def label_windows(windows: np.ndarray, boxes: np.ndarray, image: ImageRecord) -> tuple[np.ndarray, np.ndarray]:
    """What `windows` [M x 4] show of the objects of `image`, whose boxes in the windows' frame are `boxes` [n x 4].

    Labels int64 [M]: 0 background, c + 1 class c, LEFT_OUT between the two thresholds, on a difficult object or on a region to
    ignore. And the edges of the object float32 [M x 4], in the units of `WindowNetwork`; 0 without an object.
    """
    labels, edges = np.zeros(len(windows), np.int64), np.zeros((len(windows), 4), np.float32)
    objects = ~image.ignored
    if objects.any():
        overlaps = match_boxes(windows, square_around(boxes[objects]))
        nearest, shows = overlaps.nearest, overlaps.at_least(POSITIVE)
        labels[~overlaps.below(NEGATIVE)] = LEFT_OUT
        labels[shows] = np.where(image.difficult[objects], LEFT_OUT, image.labels[objects] + 1)[nearest[shows]]
        edges[shows] = window_edges(windows[shows], boxes[objects][nearest[shows]])
    labels[on_ignored(windows, boxes[image.ignored])] = LEFT_OUT
    return labels, edges


def window_edges(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The edges [M x 4] of `boxes` [M x 4] in their `windows` [M x 4], normalised. Inverse of `boxes_of_edges`."""
    side = windows[:, 2:3] - windows[:, :1]
    return ((boxes - np.tile(windows[:, :2], 2)) / side - EDGE_MEANS) / EDGE_DEVIATION


def boxes_of_edges(windows: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The boxes [M x 4] with these normalised `edges` [M x 4] in `windows` [M x 4]. Edges in the wrong order change places."""
    side = windows[:, 2:3] - windows[:, :1]
    corners = (edges * EDGE_DEVIATION + EDGE_MEANS) * side + np.tile(windows[:, :2], 2)
    first, second = corners[:, :2], corners[:, 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=1)


@dataclass(frozen=True, eq=False)
class TileBatch:
    """The tiles of a step: pixels float32 [B x T x T x 3], `labels` [B x M], `edges` [B x M x 4], random `keys` [B x M]."""

    pixels: np.ndarray
    labels: np.ndarray
    edges: np.ndarray
    keys: np.ndarray


class TileSampler:
    """Draws the tiles of each step. Any step can be drawn alone."""

    def __init__(
        self, images: Sequence[ImageRecord], layout: WindowLayout, scales: Sequence[float], *, tiles: int, mirror: bool,
        light: bool, norm: Normalisation, seed: int,
    ):
        self.images, self.layout, self.scales = images, layout, scales
        self.light, self.norm, self.seed = light, norm, seed
        self.order = ImageOrder(range(len(images)), mirror, tiles, seed)
        self.windows = layout.windows(POSITIONS, POSITIONS)

    def batches(self, read: Callable[[ImageRecord], np.ndarray], first: int) -> Iterator[TileBatch]:
        """The batches from step `first` on, without end, made in a separate thread."""

        def work() -> Iterator[TileBatch]:
            step = first
            while True:
                drawn = [self._tile(draw, read) for draw in self.order.draw(step)]
                yield TileBatch(*map(np.stack, zip(*drawn, strict=True)))
                step += 1

        return prefetch(work())

    def _tile(self, draw: ImageDraw, read: Callable[[ImageRecord], np.ndarray]) -> tuple[np.ndarray, ...]:
        image, generator = self.images[draw.number], make_generator(self.seed, "tile", draw.place)
        tile = draw_tile(image, self.layout, self.scales, generator)
        gain, offset = draw_light(generator, 1)
        pixels = tile.cut(read(image), self.norm, (gain[0], offset[0]) if self.light else None)
        boxes = tile.boxes(image.boxes)
        if draw.mirrored:
            pixels, boxes = pixels[:, ::-1], mirror_boxes(boxes, tile.side)
        labels, edges = label_windows(self.windows, boxes, image)
        return pixels, labels, edges, generator.random(len(labels), np.float32)


def unmatched_objects(images: Sequence[ImageRecord], layout: WindowLayout, scales: Sequence[float]) -> int:
    """How many counted objects are shown by no window at any scale, whatever a window's place: by their longer side alone."""
    count = 0
    for image in images:
        boxes = image.boxes[image.counted]
        longer = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        factors = np.array([s.factors[0] for s in scalings(image.height, image.width, layout, tuple(scales))])
        ratio = longer[:, None] * factors / (FILL * layout.side)
        # The IoU of two squares with one centre is the smaller area / the larger.
        count += int((np.minimum(ratio, 1 / ratio).max(axis=1, initial=0) ** 2 < POSITIVE).sum())
    return count
