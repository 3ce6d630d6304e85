"""DeconvNet's way (Noh et al. 2015): a network that sees objects in boxes, not images; training in two stages.

1. Stage "objects": boxes of true objects, ENLARGED. The object in the middle keeps its class; all else is background.
2. Stage "proposals": proposals that overlap an object by half or more, with all labels. Each class comes equally often.
3. A label map: the network's scores for each of the first proposals are resized to the box. A pixel takes for each class the
   largest score over the boxes that hold it, and 0 if that is less or no box does. The best class wins.

NOTE: A window of the paper is resized to 250 pixels, of which 224 are cut out at random: here the same share is cut out first.
What lies outside the image is left out instead of filled. Where data sets have masks of classes alone, the object is what has its
class within its box.

Shape shorthand: H, W height and width of the image; S side of the network's input; K classes; n boxes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.boxes import iou
from pipeline.datasets.masks import VOID
from pipeline.datasets.records import ImageRecord
from pipeline.errors import PipelineError
from pipeline.images.resampling import resample
from pipeline.networks.backbones import MapView
from pipeline.networks.map_inputs import ImageDraw
from pipeline.networks.whole_images import Light
from pipeline.seeding import make_generator
from pipeline.segmentation.sampling import Example, Examples
from pipeline.segmentation.segment import ImageSegmenter

OBJECTS, PROPOSALS = STAGES = "objects", "proposals"
ENLARGED = 1.2
CUT = 224 / 250  # share of a window's side that is seen
OVERLAP = 0.5  # least IoU of a proposal with an object
BOXES = 50  # proposals of an image that are looked at
LEAST_SIDE = 0.5  # of a proposal, in sides of the input: 112 of 224 pixels
BACKGROUND = 0


@dataclass(frozen=True)
class BoxSettings:
    """`stage` of the training, S, and for stage "proposals" what gives an image's boxes, float [n x 4] in pixels.

    `label_of` maps a label of the split's classes to its value in label maps.
    """

    stage: str
    side: int
    label_of: Callable[[int], int]
    proposals: Callable[[ImageRecord], np.ndarray] | None = None

    def __post_init__(self):
        if self.stage not in STAGES:
            raise PipelineError(f"segmentation in boxes: stage {self.stage!r} is none of {', '.join(STAGES)}")
        if self.stage == PROPOSALS and self.proposals is None:
            raise PipelineError("segmentation in boxes: stage 'proposals' needs the proposals of images")


def window_of(box: np.ndarray, size: tuple[int, int], factor: float = 1.0) -> tuple[int, int, int, int]:
    """The whole pixels (x1, y1, x2, y2) of `box`, `factor` times as large about its centre, cut at an image of `size` (H, W)."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * factor
    x1, y1 = np.floor(centre - half).clip(0, np.array(size)[::-1] - 1).astype(int).tolist()
    x2, y2 = np.ceil(centre + half).astype(int).tolist()
    return x1, y1, max(x1 + 1, min(size[1], x2)), max(y1 + 1, min(size[0], y2))


def cut(window: tuple[int, int, int, int], generator: np.random.Generator) -> tuple[int, int, int, int]:
    """A random part of `window` whose sides are CUT of its own."""
    x1, y1, x2, y2 = window
    width, height = max(1, round((x2 - x1) * CUT)), max(1, round((y2 - y1) * CUT))
    left, top = generator.integers((x2 - x1 - width, y2 - y1 - height), endpoint=True).tolist()
    return x1 + left, y1 + top, x1 + left + width, y1 + top + height


def crop(
    pixels: np.ndarray, window: tuple[int, int, int, int], side: int, view: MapView, *, mirror: bool = False,
    light: Light | None = None,
) -> Tensor:
    """The network's input [1 x 3 x S x S]: a window of an image, resized bilinearly and normalised."""
    mean, std = np.array(view.norm.mean), np.array(view.norm.std)
    if light is not None:
        gain, offset = light
        mean, std = mean - offset * std / gain, std / gain
    values = np.empty((1, side, side, 3), np.float32)
    geometry = np.array([window]), np.zeros((1, 2), int), np.full((1, 2), side)
    resample(pixels, geometry, np.array([mirror]), values, mean=mean, std=std)
    return torch.from_numpy(values).permute(0, 3, 1, 2)


def crop_labels(labels: np.ndarray, window: tuple[int, int, int, int], side: int) -> np.ndarray:
    """The classes [S x S] in a window of a label map, by nearest pixels."""
    x1, y1, x2, y2 = window
    rows, columns = ((np.arange(side) + 0.5) / side * (end - first) for first, end in ((y1, y2), (x1, x2)))
    return labels[y1 + rows.astype(int)[:, None], x1 + columns.astype(int)]


class BoxExamples(Examples):
    """Examples that are boxes of images instead of images."""

    def __init__(self, images: Sequence[ImageRecord], read, read_labels, *, boxes: BoxSettings, **settings):
        super().__init__(images, read, read_labels, **settings)
        self.settings = boxes
        self.rows = [row for number, record in enumerate(images) for row in self._rows_of(number, record)]
        if not self.rows:
            raise PipelineError(f"segmentation in boxes: no training image has a box of stage '{boxes.stage}'")
        classes = sorted({label for _, _, label in self.rows})
        self.by_class = [[row for row in self.rows if row[2] == label] for label in classes]

    def _rows_of(self, number: int, record: ImageRecord) -> Iterator[tuple[int, np.ndarray, int]]:
        """The image's number, a box and the label of its object in label maps, for each box of the image."""
        objects, labels = record.boxes[record.counted], record.labels[record.counted]
        if not len(objects):
            return
        if self.settings.stage == OBJECTS:
            for box, label in zip(objects, labels.tolist()):
                yield number, box.astype(np.float64), self.settings.label_of(label)
            return
        assert self.settings.proposals is not None
        proposals = np.asarray(self.settings.proposals(record), np.float64).reshape(-1, 4)
        overlaps = iou(proposals, objects) if len(proposals) else np.zeros((0, len(objects)))
        for box, of_box in zip(proposals, overlaps):
            if of_box.max() >= OVERLAP:
                yield number, box, self.settings.label_of(int(labels[of_box.argmax()]))

    def example(self, turn: ImageDraw, light: Light | None = None) -> Example:
        """A box that the place of the `turn` draws; its image is another one than the turn's."""
        generator = make_generator(self.seed, "box", turn.place)
        rows = self.rows
        if self.settings.stage == PROPOSALS:
            rows = self.by_class[int(generator.integers(len(self.by_class)))]
        number, box, label = rows[int(generator.integers(len(rows)))]
        record, side = self.images[number], self.settings.side
        pixels, labels = self.read(record), self.read_labels(record)
        factor = ENLARGED if self.settings.stage == OBJECTS else 1.0
        window = cut(window_of(box, labels.shape, factor), generator)
        if self.settings.stage == OBJECTS:
            labels = alone(labels, box, label)
        classes = crop_labels(labels, window, side)
        classes = classes[:, ::-1] if turn.mirrored else classes
        values = crop(pixels, window, side, self.view, mirror=turn.mirrored, light=light)
        return Example(values, torch.from_numpy(classes.astype(np.int64))[None], turn)

    def each(self, at_most: int) -> Iterator[Example]:
        for number in range(min(at_most, len(self.rows))):
            yield self.example(ImageDraw(0, False, number))


def alone(labels: np.ndarray, box: np.ndarray, label: int) -> np.ndarray:
    """The label map [H x W] in which only the object of class `label` in `box` is left; void stays void."""
    x1, y1, x2, y2 = window_of(box, (labels.shape[0], labels.shape[1]))
    inside = np.zeros(labels.shape, bool)
    inside[y1:y2, x1:x2] = True
    keeps = (labels == VOID) | (inside & (labels == label))
    return np.where(keeps, labels, BACKGROUND).astype(labels.dtype)


class BoxSegmenter:
    """Label maps from the boxes of an image, by a network that sees `side` x `side` pixels."""

    def __init__(self, segmenter: ImageSegmenter, side: int, boxes: int = BOXES):
        self.segmenter, self.side, self.boxes = segmenter, side, boxes

    def segment(self, pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """The class of each pixel, uint8 [H x W], of an image, uint8 RGB [H x W x 3]; `boxes` [n x 4], the best first."""
        return self.scores(pixels, boxes).argmax(0).cpu().numpy().astype(np.uint8)

    def scores(self, pixels: np.ndarray, boxes: np.ndarray) -> Tensor:
        """The largest score [K x H x W] of each pixel and class over the boxes, 0 at least."""
        size, model = (pixels.shape[0], pixels.shape[1]), self.segmenter.model
        largest = torch.zeros(model.layout.num_classes, *size, device=self.segmenter.device)
        for box in np.asarray(boxes, np.float64).reshape(-1, 4)[: self.boxes]:
            x1, y1, x2, y2 = window = window_of(box, size)
            if min(x2 - x1, y2 - y1) < LEAST_SIDE * self.side:
                continue
            scores = self.segmenter.scores_of(crop(pixels, window, self.side, model.backbone.view))
            resized = nn.functional.interpolate(scores, (y2 - y1, x2 - x1), mode="bilinear", align_corners=False)[0]
            part = largest[:, y1:y2, x1:x2]
            torch.maximum(part, resized, out=part)
        return largest
