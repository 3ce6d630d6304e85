"""Compares our region proposals with those of OpenCV and of the package selectivesearch, on one folder of photographs.

    python -m benchmarks.proposals FOLDER [--split test] [--images 100] [--without opencv-quality,selectivesearch]

The methods take turns on each image, on one thread. One image before the others warms up and compiles. The first table shows
boxes and CPU seconds per image, MABO over classes, and recall. The second shows the differences between ours and OpenCV's, with
95 % intervals by paired bootstrap over images. If ours gives more boxes on average, it is cut there to OpenCV's number on each
image. The last table shows the time of the same images with one thread and with two.
"""

import argparse
import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.datasets.formats import read_split, split_files
from pipeline.datasets.records import ImageRecord
from pipeline.images.reading import read_record
from pipeline.proposals import OWN
from pipeline.proposals.opencv import find_boxes
from pipeline.proposals.package import group_regions
from pipeline.proposals.ranking import merge_hierarchies, select_boxes
from pipeline.proposals.recall import best_overlaps_of_first, measure_quality
from pipeline.proposals.selective_search import selective_search
from pipeline.seeding import make_generator
from pipeline.tables import format_table

# Pairs of a method of ours and the method that it is compared with.
RIVALS = (("fast", "opencv-paper"), ("fast", "opencv"), ("balanced", "opencv"), ("quality", "opencv-quality"))
THREADED_ROUNDS, THREADED_IMAGES = 5, 40
RESAMPLES = 2000


def opencv_paper(image: np.ndarray) -> np.ndarray:
    """OpenCV's engine with the paper's `fast` constants: HSV and Lab, k = 50 and 100, two combinations of similarities."""
    import cv2

    engine = cv2.ximgproc.segmentation
    search = engine.createSelectiveSearchSegmentation()
    colours = np.ascontiguousarray(image[..., ::-1])
    search.setBaseImage(colours)
    for conversion in (cv2.COLOR_BGR2HSV, cv2.COLOR_BGR2Lab):
        search.addImage(cv2.cvtColor(colours, conversion))
    for k in (50, 100):
        search.addGraphSegmentation(engine.createGraphSegmentation(0.8, float(k), k))
    for with_colour in (True, False):
        parts = [
            engine.createSelectiveSearchSegmentationStrategyTexture(), engine.createSelectiveSearchSegmentationStrategySize(),
            engine.createSelectiveSearchSegmentationStrategyFill(),
        ]
        if with_colour:
            parts.insert(0, engine.createSelectiveSearchSegmentationStrategyColor())
        search.addStrategy(engine.createSelectiveSearchSegmentationStrategyMultiple(*parts))
    left, top, width, height = search.process().astype(np.float64).reshape(-1, 4).T
    # As in the paper and in ours: no side under 20 pixels.
    return select_boxes(np.stack([left, top, left + width, top + height], axis=1), image.shape[:2])


def package(image: np.ndarray) -> np.ndarray:
    return select_boxes(merge_hierarchies(group_regions(image), np.random.default_rng(0)), image.shape[:2])


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{mode: (lambda image, mode=mode: selective_search(image, mode)) for mode in OWN},
    "opencv": lambda image: find_boxes(image, np.random.default_rng(0)), "opencv-paper": opencv_paper,
    "opencv-quality": lambda image: find_boxes(image, np.random.default_rng(0), quality=True),
    "selectivesearch": package,
}


def propose_all(methods: dict[str, Callable], images: list[np.ndarray]) -> tuple[dict[str, list[np.ndarray]], dict[str, float]]:
    """For each method its boxes in all images, and its CPU seconds per image."""
    boxes: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    for number, image in enumerate([images[0], *images]):
        for name, method in methods.items():
            start = time.process_time()
            image_boxes = method(image)
            if number:  # the first run is the warm-up
                seconds[name] += (time.process_time() - start) / len(images)
                boxes[name].append(image_boxes)
    return boxes, seconds


def measure(boxes: list[np.ndarray], records: Sequence[ImageRecord], num_classes: int) -> np.ndarray:
    """MABO, recall at 0.5 and at 0.7."""
    quality = measure_quality(boxes, [record.boxes for record in records], [record.labels for record in records], num_classes)
    return np.array([quality.mabo[-1], quality.recalls[-1, 0], quality.recalls[-1, 4]])


def resample(boxes: list[np.ndarray], records: Sequence[ImageRecord], num_classes: int) -> np.ndarray:
    """MABO, recall at 0.5 and at 0.7 [RESAMPLES x 3] on resampled images, the same for every method."""
    sums = []  # for each image: per class the sum of best overlaps and the number of objects; the hits at 0.5 and at 0.7
    for image_boxes, record in zip(boxes, records, strict=True):
        best = best_overlaps_of_first(image_boxes, record.boxes, np.array([len(image_boxes)]))[:, 0]
        by_class = [np.bincount(record.labels, value, num_classes) for value in (best, np.ones(len(best)))]
        sums.append(np.concatenate([*by_class, [(best >= 0.5).sum(), (best >= 0.7).sum()]]))
    times = make_generator(0, "proposals").multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    overlaps, objects, hits = np.split(times @ np.array(sums), [num_classes, 2 * num_classes], axis=1)
    by_class = np.divide(overlaps, objects, out=np.full_like(overlaps, np.nan), where=objects > 0)
    return np.column_stack([np.nanmean(by_class, axis=1), hits / objects.sum(axis=1, keepdims=True)])


def compare(ours: list[np.ndarray], theirs: list[np.ndarray], *truth) -> list[str]:
    """The numbers of boxes, and the differences of the figures of `measure`, with their intervals."""
    if sum(map(len, ours)) > sum(map(len, theirs)):
        ours = [own_boxes[: len(their_boxes)] for own_boxes, their_boxes in zip(ours, theirs, strict=True)]
    differences = measure(ours, *truth) - measure(theirs, *truth)
    bounds = np.quantile(resample(ours, *truth) - resample(theirs, *truth), (0.025, 0.975), axis=0)
    cells = [f"{value:+.3f} ({low:+.3f} to {high:+.3f})" for value, low, high in zip(differences, *bounds, strict=True)]
    return [f"{mean_count(ours)} / {mean_count(theirs)}", *cells]


def mean_count(boxes: list[np.ndarray]) -> str:
    return f"{np.mean([len(image_boxes) for image_boxes in boxes]):.0f}"


def time_threads(method: Callable, images: list[np.ndarray]) -> list[float | str]:
    """Wall seconds per image with one thread and with two, their ratio, and the range of the ratio over the rounds."""
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(THREADED_ROUNDS):
        for threads in times:
            with ThreadPoolExecutor(threads) as pool:
                start = time.perf_counter()
                list(pool.map(method, images))
                times[threads].append((time.perf_counter() - start) / len(images))
    ratios = [single / double for single, double in zip(times[1], times[2], strict=True)]
    return [median(times[1]), median(times[2]), f"{median(ratios):.2f}", f"{min(ratios):.2f} - {max(ratios):.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="data set in PASCAL VOC's or COCO's layout")
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, default=100, help="number of images, evenly spread over the split")
    parser.add_argument("--without", default="", help="methods to leave out, separated by commas")
    options = parser.parse_args()
    methods = {name: method for name, method in METHODS.items() if name not in options.without.split(",")}
    files = split_files(options.folder, options.split)
    digests = {name: hashlib.sha256((options.folder / name).read_bytes()).hexdigest() for name in files}
    split = read_split(options.folder, options.split, None, digests)
    records = split.images[:: max(1, len(split.images) // options.images)][: options.images]
    images = [read_record(options.folder, record) for record in records]
    truth = records, len(split.classes)

    boxes, seconds = propose_all(methods, images)
    headers, objects = ["MABO", "recall 0.5", "recall 0.7"], sum(len(record.boxes) for record in records)
    print(f"{len(images)} images of {options.folder.name} {options.split}, {objects} objects\n")
    rows = [
        [name, mean_count(boxes[name]), seconds[name], *measure(boxes[name], *truth)]
        for name in sorted(methods, key=seconds.__getitem__)
    ]
    print(format_table(["method", "boxes", "seconds", *headers], rows, decimals=3))
    rows = [
        [f"{ours} - {rival}", *compare(boxes[ours], boxes[rival], *truth), f"{seconds[rival] / seconds[ours]:.1f} x"]
        for ours, rival in RIVALS if {ours, rival} <= methods.keys()
    ]
    print("\nours with at most as many boxes:")
    print(format_table(["difference", "boxes", *headers, "faster"], rows), flush=True)
    rows = [[mode, *time_threads(methods[mode], images[:THREADED_IMAGES])] for mode in OWN if mode in methods]
    print(f"\nwall seconds per image, median of {THREADED_ROUNDS}:")
    print(format_table(["mode", "one thread", "two threads", "ratio", "range"], rows, decimals=3))


if __name__ == "__main__":
    main()
