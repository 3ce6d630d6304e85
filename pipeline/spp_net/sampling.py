"""What SPP-net's fully connected layers are fine-tuned on: regions of all images, pooled from cached maps, in blocks of steps.

As `PrepareBatchData` in finetuning/spp_finetune_voc.m of ShaoqingRen/SPP_net, for one block of steps:

1. Images, and with `mirror` their mirror images, in a random order; the first ones, until they have ten times as many regions of
   objects and of the background as the block needs.
2. Of these regions as many as the block needs, in a random order. NOTE: where there are too few, they come in several rounds;
   the release stops.
3. Each is pooled from the map of a random scale (`opts.random_scale`), or of the scale that it has in detection.

A block draws from a generator of its own, so that it can be drawn alone, and its images are read once.

Shape shorthand: N regions of a block, P values of a pyramid.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.records import ImageRecord
from pipeline.errors import PipelineError
from pipeline.networks.map_store import StoredMap
from pipeline.networks.parts import BATCH_SIZE
from pipeline.networks.whole_images import Scaling, mirror_boxes
from pipeline.prefetch import prefetch
from pipeline.rcnn.windows import FOREGROUND_FRACTION, FOREGROUND_OVERLAP, Windows
from pipeline.seeding import make_generator
from pipeline.spp_net.spatial_pyramid import choose_scales

# spp_finetune_voc.m of ShaoqingRen/SPP_net: bg_threshold, nTimesMoreData, iter_per_batch
BACKGROUND_OVERLAP = 0.1  # the background has this IoU at least, and less than FOREGROUND_OVERLAP
TIMES_MORE = 10
MOST_STEPS = 500
BLOCK_BYTES = 256 << 20  # ours: a block of 500 steps of VGG-16's pyramid would take 3 GB


@dataclass(frozen=True)
class BlockDraw:
    """The regions of a block, step after step: `windows` [N], whether each is `mirrored` [N], the number of its `scale` [N]."""

    windows: Windows
    mirrored: np.ndarray
    scale: np.ndarray


def block_steps(num_values: int) -> int:
    """Steps of a block whose regions have `num_values` each, in float16."""
    return min(MOST_STEPS, max(1, BLOCK_BYTES // (2 * BATCH_SIZE * num_values)))


def nearest_scales(
    windows: Windows, images: Sequence[ImageRecord], scales: Sequence[int], longest: int, crop_size: int
) -> np.ndarray:
    """The number of the scale from which each of `windows` is pooled in detection: int [N]. See `choose_scales`."""
    chosen = np.zeros(len(windows), np.int64)
    starts = np.searchsorted(windows.image, np.arange(len(images) + 1))
    for image, (begin, end) in zip(images, itertools.pairwise(starts.tolist()), strict=True):
        scalings = [Scaling.of(image.height, image.width, shorter, longest) for shorter in scales]
        chosen[begin:end] = choose_scales(windows.boxes[begin:end], scalings, crop_size)
    return chosen


class BlockSampler:
    """Draws blocks of `steps` steps of 32 regions of objects and 96 of the background.

    Their images are in order in `windows`. `scales` gives the number of the scale of each [N], or how many there are to draw
    from. Raises PipelineError without a region of either kind.
    """

    def __init__(self, windows: Windows, seed: int, *, mirror: bool, scales: np.ndarray | int, steps: int):
        self.windows, self.seed, self.scales, self.steps = windows, seed, scales, steps
        foreground, background = windows.labels > 0, windows.labels == 0
        if not foreground.any() or not background.any():
            raise PipelineError(
                f"SPP-net's fine-tuning needs regions of objects and of the background; found {foreground.sum()} with IoU >= "
                f"{FOREGROUND_OVERLAP} and {background.sum()} with IoU from {BACKGROUND_OVERLAP} to that; raise --max-proposals, "
                "or train the SVMs on the pyramid: --spp-layer pool5"
            )
        num_foreground = int(BATCH_SIZE * FOREGROUND_FRACTION)
        self.kinds = (foreground, num_foreground), (background, BATCH_SIZE - num_foreground)
        # The regions of each turn of an image, kind by kind; the mirror images come after the images.
        self.num_images = int(windows.image.max()) + 1
        self.num_turns = self.num_images * (2 if mirror else 1)
        ends = np.searchsorted(windows.image, np.arange(1, self.num_images))
        self._rows = [[part[part >= 0] for part in np.split(np.where(kind, np.arange(len(kind)), -1), ends)]
                      for kind, _ in self.kinds]

    def draw(self, block: int) -> BlockDraw:
        """The regions of the steps from `block` * `steps` on; any block can be drawn alone."""
        generator = make_generator(self.seed, "block", block)
        order = generator.permutation(self.num_turns)
        # 1. Images until both kinds are plenty
        needed = [TIMES_MORE * count * self.steps for _, count in self.kinds]
        ends = []
        for of_images, count in zip(self._rows, needed):
            sizes = np.cumsum([len(of_images[turn % self.num_images]) for turn in order])
            ends.append(int(np.searchsorted(sizes, count, side="right")) + 1)
        turns = order[: max(ends)]
        # 2. Regions of both
        drawn = [self._draw_kind(of_images, count, turns, generator) for of_images, (_, count) in zip(self._rows, self.kinds)]
        rows, flips = (np.concatenate(parts, axis=1).ravel() for parts in zip(*drawn, strict=True))
        # 3. Scales
        chosen = generator.integers(self.scales, size=len(rows)) if isinstance(self.scales, int) else self.scales[rows]
        return BlockDraw(self.windows.take(rows), flips, chosen)

    def _draw_kind(
        self, rows: list[np.ndarray], count: int, turns: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of `windows` [steps x count], and whether each is mirrored."""
        pool = np.concatenate([rows[turn % self.num_images] for turn in turns])
        flips = np.repeat(turns >= self.num_images, [len(rows[turn % self.num_images]) for turn in turns])
        wanted = self.steps * count
        rounds = -(-wanted // len(pool))
        chosen = np.concatenate([generator.permutation(len(pool)) for _ in range(rounds)])[:wanted].reshape(-1, count)
        return pool[chosen], flips[chosen]


def pooled_batches(
    sampler: BlockSampler, images: Sequence[ImageRecord], read: Callable[[int, int, bool], StoredMap],
    pool: Callable[[StoredMap, np.ndarray], np.ndarray], first: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (rows of the pyramid [128 x P], labels [128]) for the steps from `first` on, without end, computed ahead.

    `read(image, scale, mirrored)` gives a map, scales by their number; `pool(map, boxes)` the rows of its boxes.
    """

    def work() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        block, skipped = divmod(first, sampler.steps)
        while True:
            draw = sampler.draw(block)
            rows = pool_block(draw, images, read, pool)
            for begin in range(skipped * BATCH_SIZE, len(rows), BATCH_SIZE):
                yield rows[begin : begin + BATCH_SIZE], draw.windows.labels[begin : begin + BATCH_SIZE]
            block, skipped = block + 1, 0

    return prefetch(work())


def pool_block(
    draw: BlockDraw, images: Sequence[ImageRecord], read: Callable[[int, int, bool], StoredMap],
    pool: Callable[[StoredMap, np.ndarray], np.ndarray],
) -> np.ndarray:
    """The rows of the pyramid of a block's regions [N x P]; each map is read once."""
    order = np.lexsort((draw.scale, draw.mirrored, draw.windows.image))
    kinds = np.stack([draw.windows.image, draw.mirrored, draw.scale], axis=1)[order]
    firsts = np.flatnonzero(np.diff(kinds, axis=0, prepend=-1).any(axis=1))
    rows = None
    for begin, end in zip(firsts, [*firsts[1:], len(order)], strict=True):
        image, mirrored, scale = kinds[begin].tolist()
        chosen = order[begin:end]
        boxes = draw.windows.boxes[chosen]
        pooled = pool(read(image, scale, bool(mirrored)), mirror_boxes(boxes, images[image].width) if mirrored else boxes)
        if rows is None:
            rows = np.empty((len(order), pooled.shape[1]), pooled.dtype)
        rows[chosen] = pooled
    assert rows is not None  # a block has a step at least
    return rows
