"""Features of every region: crop and warp, run the network, one row per region (Girshick et al. 2014, section 2).

Reading and warping, the network, and writing run side by side, in threads. Crops of many images fill one batch.

Shape shorthand: N crops of a batch, S side of a crop, D features.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from pipeline.datasets.records import ImageRecord
from pipeline.feature_store import NOT_TRAINED, PROPOSAL, Annotations, FeatureStore, FeatureWriter, ImageFeatures
from pipeline.matching import match_boxes, on_ignored
from pipeline.networks.backbones import Backbone, Normalisation
from pipeline.networks.compute import DTYPES
from pipeline.prefetch import in_order, prefetch
from pipeline.rcnn.crop_memory import crops_to_tensor, empty_crops
from pipeline.rcnn.warp import crop_padding, warp


@dataclass(frozen=True)
class Regions:
    """An image's regions: ground truth first, then proposals. `boxes` float32 [n x 4].

    `image` has its objects alone; `untrained` are the rows of the proposals that lie on regions to ignore.
    """

    image: ImageRecord
    boxes: np.ndarray
    untrained: Sequence[int] | np.ndarray = ()

    def rows(self, features: np.ndarray, num_classes: int) -> ImageFeatures:
        """What the store holds of them."""
        assert len(features) == len(self.boxes)
        return ImageFeatures(**vars(self.annotations(num_classes)), features=features)

    def annotations(self, num_classes: int, repeated: np.ndarray | None = None) -> Annotations:
        """The same without features. `repeated`: see `pipeline.feature_store`."""
        objects, proposals = len(self.image.boxes), len(self.boxes) - len(self.image.boxes)
        overlaps = match_boxes(self.boxes, self.image.boxes).by_class(self.image.labels, num_classes)
        overlaps[np.array(self.untrained, np.int64)] = NOT_TRAINED
        labels = np.concatenate([self.image.labels, np.full(proposals, PROPOSAL)]).astype(np.int32)
        difficult = np.concatenate([self.image.difficult, np.zeros(proposals, bool)])
        assert len(labels) == objects + proposals
        return Annotations(self.boxes, overlaps, labels, difficult, repeated=repeated)


@dataclass(frozen=True)
class Extraction:
    """How crops go through the network. `padding` is the context in pixels of a 227 x 227 crop; `readers` threads make crops."""

    precision: str
    padding: int
    batch_size: int
    device: torch.device
    readers: int = 1


def join_regions(image: ImageRecord, proposals: np.ndarray) -> Regions:
    """The ground-truth boxes of `image`, without regions to ignore, then `proposals` [n x 4]."""
    objects = image.without_ignored()
    untrained = len(objects.boxes) + np.flatnonzero(on_ignored(proposals, image.ignored_boxes))
    return Regions(objects, np.concatenate([objects.boxes, proposals]).astype(np.float32), untrained)


@dataclass
class _Batch:
    """`crops` float32 [N x S x S x 3]; `parts` are the (image number, rows) that fill it, in order."""

    crops: np.ndarray
    parts: list[tuple[int, int]]


@dataclass
class _Part:
    """Regions of one image in a batch: the image's number, its pixels when they are read, and boxes [n x 4]."""

    number: int
    pixels: Future
    boxes: np.ndarray


def warped_batches(
    regions: Iterable[Regions], read: Callable[[ImageRecord], np.ndarray], crop_size: int, norm: Normalisation,
    extraction: Extraction,
) -> Iterator[_Batch]:
    """Crops of the regions of all images, in order, in batches of `batch_size` (the last one smaller).

    `readers` threads read images and fill batches side by side. The next batches are made while one is in use.
    """
    pool = ThreadPoolExecutor(extraction.readers)
    padding = crop_padding(extraction.padding, crop_size)

    def fill(parts: list[_Part]) -> _Batch:
        ends = np.cumsum([len(part.boxes) for part in parts])
        crops = empty_crops(ends[-1], crop_size, extraction.device)
        for part, out in zip(parts, np.split(crops, ends[:-1]), strict=True):
            # No deadlock: the image was given to the pool before this batch, so a thread has it in hand or is done.
            warp(part.pixels.result(), part.boxes, out, norm.mean, norm.std, padding=padding)
        return _Batch(crops, [(part.number, len(part.boxes)) for part in parts])

    batches = _divide(regions, lambda image: pool.submit(read, image), extraction.batch_size)
    return in_order(pool, (partial(fill, parts) for parts in batches), extraction.readers + 1)


def _divide(regions: Iterable[Regions], start_reading: Callable[[ImageRecord], Future], batch_size: int) -> Iterator[list[_Part]]:
    """The parts of each batch. The images of a batch are started to be read before it is yielded."""
    parts: list[_Part] = []
    left = batch_size
    for number, of_image in enumerate(regions):
        if not len(of_image.boxes):
            continue
        pixels, done = start_reading(of_image.image), 0
        while done < len(of_image.boxes):
            part = _Part(number, pixels, of_image.boxes[done : done + left])
            parts.append(part)
            done, left = done + len(part.boxes), left - len(part.boxes)
            if not left:
                yield parts
                parts, left = [], batch_size
    if parts:
        yield parts


def region_features(
    regions: list[Regions], read: Callable[[ImageRecord], np.ndarray], backbone: Backbone, layer: str, extraction: Extraction
) -> Iterator[np.ndarray]:
    """Yields, image by image, the values of `layer` for its regions: float16 [n x D]. `backbone` is ready for inference."""
    device, dtype = extraction.device, DTYPES[extraction.precision]
    batches = warped_batches(regions, read, backbone.crop_size, backbone.view.norm, extraction)
    pending: list[np.ndarray] = []
    number = 0
    for batch in batches:
        with torch.inference_mode():
            values = backbone(crops_to_tensor(batch.crops, device, dtype), layer).to(torch.float16).cpu().numpy()
        ends = np.cumsum([count for _, count in batch.parts])
        for (owner, _), part in zip(batch.parts, np.split(values, ends[:-1]), strict=True):
            while number < owner:  # that image's last rows came before
                yield _join(pending, backbone.sizes[layer])
                pending, number = [], number + 1
            pending.append(part)
    while number < len(regions):
        yield _join(pending, backbone.sizes[layer])
        pending, number = [], number + 1


def _join(parts: list[np.ndarray], num_features: int) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros((0, num_features), np.float16)


def write_features(regions: list[Regions], features: Iterable[np.ndarray], writer: FeatureWriter, num_classes: int) -> int:
    """Writes what `region_features` yields; returns how many rows."""
    pairs = zip(regions, features, strict=True)
    return write_rows(((of_image.image.id, of_image.rows(values, num_classes)) for of_image, values in pairs), writer)


def write_rows(by_image: Iterable[tuple[str, Annotations]], writer: FeatureWriter) -> int:
    """Writes the rows of each image, given with its id, one image behind in a thread; returns how many rows."""
    written = 0
    with ThreadPoolExecutor(1) as pool:
        pending = None
        for image_id, rows in by_image:
            if pending:
                pending.result()
            pending = pool.submit(writer.append, image_id, rows)
            written += len(rows.boxes)
        if pending:
            pending.result()
    return written


def layer_from_pool5(pool5: np.ndarray, backbone: Backbone, layer: str, device: torch.device) -> np.ndarray:
    """Values of `layer` float16 [n x D] from those of `pool5` [n x D']. `backbone` is ready for inference."""
    with torch.inference_mode():
        values = torch.from_numpy(pool5).to(device=device, dtype=next(backbone.parameters()).dtype)
        return backbone.head(values, layer).to(torch.float16).cpu().numpy()


def deeper_features(store: FeatureStore, backbone: Backbone, layer: str, device: torch.device) -> Iterator[ImageFeatures]:
    """The rows of each image of a `pool5` store with the features of `layer` in their place."""
    for rows in prefetch(store):
        yield replace(rows, features=layer_from_pool5(rows.features, backbone, layer, device))
