"""What is in a data set, as figures: splits, classes, sizes, ratios, duplicates, and how well anchors and proposals fit.

An image that is in several splits counts once, except in the figures of a split. Regions to ignore are no objects.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

from pipeline.boxes import area, iou
from pipeline.datasets.records import ImageRecord, Split
from pipeline.datasets.whole import Dataset, Progress, silent
from pipeline.description.duplicates import BITS, MOST_BITS, equal_files, groups, hash_of, near_pairs
from pipeline.description.fit import RELEASE, AnchorSet, measure
from pipeline.files.reading import MAX_MEGAPIXELS

QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # percent
SMALL, LARGE = 32**2, 96**2  # pixels of area; cocodataset.org, "Detection evaluation"
BINS = 20  # of a histogram

Proposals = Mapping[str, np.ndarray]  # boxes [N x 4] by the images' paths


def describe(
    dataset: Dataset, *, anchors: AnchorSet = RELEASE, proposals: Mapping[str, tuple[str, Proposals]] | None = None,
    max_megapixels: float = MAX_MEGAPIXELS, progress: Progress = silent,
) -> dict:
    """The figures of a data set, as JSON. `proposals` gives, by split, their source and the boxes of each image."""
    images = list(dataset.images().values())
    hashes = [hash_of(dataset.root, image, max_megapixels) for image in progress(images, "comparing")]
    near = near_pairs(hashes)
    counted = [image.select(~image.ignored) for image in images]
    fit = measure(progress(images, "anchors"), anchors.best, dataset.classes)
    return {
        "folder": str(dataset.root), "format": dataset.format, "classes": list(dataset.classes),
        "splits": {name: _split(split) for name, split in dataset.splits.items()},
        "images": _images(counted),
        "objects": _objects(counted, dataset.classes),
        "duplicates": _duplicates(images, near),
        "in_two_splits": _in_two_splits(dataset, images, near),
        "anchors": {**anchors.to_json(), **fit},
        "proposals": {name: _proposals(split, (proposals or {}).get(name)) for name, split in dataset.splits.items()},
    }


def _split(split: Split) -> dict:
    objects = [image.labels[~image.ignored] for image in split.images]
    counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *objects]), minlength=len(split.classes))
    return {
        "images": len(objects), "without_objects": sum(not len(labels) for labels in objects), "objects": int(counts.sum()),
        "difficult": sum(int(image.difficult.sum()) for image in split.images),
        "regions_to_ignore": sum(int(image.ignored.sum()) for image in split.images),
        "classes": dict(zip(split.classes, counts.tolist())),
    }


def _images(images: Sequence[ImageRecord]) -> dict:
    sizes = np.array([(image.width, image.height) for image in images]).reshape(-1, 2)
    return {
        "count": len(images), "width": quantiles(sizes[:, 0]), "height": quantiles(sizes[:, 1]),
        "objects_per_image": quantiles(np.array([len(image.labels) for image in images])),
        "without_objects": [image.path for image in images if not len(image.labels)],
    }


def _objects(images: Sequence[ImageRecord], classes: Sequence[str]) -> dict:
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(image.boxes for image in images)])
    labels = np.concatenate([np.zeros(0, np.int64), *(image.labels for image in images)])
    places = np.repeat(np.arange(len(images)), [len(image.labels) for image in images])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    sides, ratios = np.sqrt(width * height), height / width
    by_class = {}
    for number, name in enumerate(classes):
        of_class = labels == number
        areas = area(boxes[of_class])
        by_class[name] = {
            "objects": int(of_class.sum()), "images": len(np.unique(places[of_class])), "side": quantiles(sides[of_class]),
            "ratio": quantiles(ratios[of_class]), "small": int((areas < SMALL).sum()), "large": int((areas >= LARGE).sum()),
        }
    return {
        "count": len(boxes), "side": quantiles(sides), "ratio": quantiles(ratios), "classes": by_class,
        "sides": histogram(sides), "ratios": histogram(ratios),
    }


def quantiles(values: np.ndarray) -> list[float] | None:
    """The values at QUANTILES; None without values."""
    return [round(float(value), 3) for value in np.percentile(values, QUANTILES)] if len(values) else None


def histogram(values: np.ndarray) -> dict:
    """How many values lie in each of BINS bins; each of their `edges` is a constant times the one before."""
    if not len(values):
        return {"edges": [], "counts": []}
    low, high = float(values.min()), float(values.max())
    edges = np.geomspace(low, max(high, low * 1.01), BINS + 1)
    inner = np.searchsorted(edges[1:-1], values, side="right")  # rounding puts no value outside
    return {"edges": [round(float(edge), 3) for edge in edges], "counts": np.bincount(inner, minlength=BINS).tolist()}


def _duplicates(images: Sequence[ImageRecord], near: Sequence[tuple[int, int]]) -> dict:
    equal = equal_files(images)
    twice = {(first, copy) for first, *copies in equal for copy in copies}
    joined = groups(len(images), [*twice, *near])
    files = {number: images[number].digest for group in joined for number in group}
    only_near = [group for group in joined if len({files[number] for number in group}) > 1]
    paths = [[[images[number].path for number in group] for group in kind] for kind in (equal, only_near)]
    return {"equal": paths[0], "near": paths[1], "most_bits": MOST_BITS, "bits": BITS}


def _in_two_splits(dataset: Dataset, images: Sequence[ImageRecord], near: Sequence[tuple[int, int]]) -> list[dict]:
    """For each two splits the images that are in both: the same content, and other images that are near duplicates."""
    digests = {name: {image.digest for image in split.images} for name, split in dataset.splits.items()}
    pairs = [(images[first].digest, images[second].digest) for first, second in near]
    shared = []
    for first, second in combinations(digests, 2):
        same = digests[first] & digests[second]
        across = sum(
            left != right and not {left, right} <= same
            and ((left in digests[first] and right in digests[second]) or (right in digests[first] and left in digests[second]))
            for left, right in pairs
        )
        if same or across:
            shared.append({"splits": [first, second], "equal": len(same), "near": across})
    return shared


def _proposals(split: Split, proposals: tuple[str, Proposals] | None) -> dict | None:
    """How well the proposals cover a split's objects; None where there are none."""
    if proposals is None:
        return None
    source, boxes = proposals
    best: Callable[[ImageRecord], np.ndarray] = lambda image: iou(  # noqa: E731
        image.boxes[image.counted], boxes[image.path]).max(axis=1, initial=0)
    numbers = [len(boxes[image.path]) for image in split.images]
    return {"source": source, "boxes_per_image": float(np.mean(numbers)), **measure(split.images, best, split.classes)}
