"""Region proposals side by side with OpenCV's and the package selectivesearch's, on one folder of photographs in one run.

    python -m benchmarks.proposals FOLDER [--split test] [--images 100] [--without opencv-quality,selectivesearch]

Each method takes the images in turn, on one thread, after one that warms up (and compiles). The first table tells boxes and CPU
seconds an image, MABO over classes and recall; the second the differences between ours and OpenCV's, with 95 % intervals by
paired bootstrap over images. There, where ours gives more boxes on average, it is cut to as many as OpenCV gives on each image.
Then the same images by one thread and by two.
"""

import argparse
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.datasets.voc import read_split, split_files
from pipeline.evaluation.table import format_table
from pipeline.images import read_image
from pipeline.proposals import OWN
from pipeline.proposals.opencv import find_boxes
from pipeline.proposals.package import group_regions
from pipeline.proposals.ranking import merge_hierarchies, select_boxes
from pipeline.proposals.recall import best_overlaps_of_first, measure_quality
from pipeline.proposals.selective_search import selective_search
from pipeline.seeding import make_generator

# Ours, and what it is measured against.
RIVALS = (("fast", "opencv-paper"), ("fast", "opencv"), ("balanced", "opencv"), ("quality", "opencv-quality"))
THREADED_ROUNDS = 5
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
    # As the paper has it, and ours: no side under 20 pixels.
    return select_boxes(np.stack([left, top, left + width, top + height], axis=1), image.shape[:2])


def package(image: np.ndarray) -> np.ndarray:
    return select_boxes(merge_hierarchies(group_regions(image), np.random.default_rng(0)), image.shape[:2])


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{mode: (lambda image, mode=mode: selective_search(image, mode)) for mode in OWN},
    "opencv": lambda image: find_boxes(image, np.random.default_rng(0)), "opencv-paper": opencv_paper,
    "opencv-quality": lambda image: find_boxes(image, np.random.default_rng(0), quality=True),
    "selectivesearch": package,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="in PASCAL VOC's layout")
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, default=100, help="evenly spread over the split")
    parser.add_argument("--without", default="", help="methods to leave out, separated by commas")
    options = parser.parse_args()
    methods = {name: method for name, method in METHODS.items() if name not in options.without.split(",")}
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in split_files(options.folder, options.split)}
    split = read_split(options.folder, options.split, None, digests)
    records = split.images[:: max(1, len(split.images) // options.images)][: options.images]
    images = [read_image(options.folder / record.path) for record in records]

    boxes = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    for number, image in enumerate([images[0], *images]):
        for name, method in methods.items():
            start = time.process_time()
            found = method(image)
            if number:  # the first one warms up
                seconds[name] += time.process_time() - start
                boxes[name].append(found)

    def measure(found: list[np.ndarray]) -> list[float]:
        quality = measure_quality(
            found, [record.boxes for record in records], [record.labels for record in records], len(split.classes)
        )
        return [quality.mabo[-1], quality.recalls[-1, 0], quality.recalls[-1, 4], quality.average_recall[-1]]

    def mean_count(found: list[np.ndarray]) -> str:
        return f"{np.mean([len(image) for image in found]):.0f}"

    def resample(found: list[np.ndarray]) -> np.ndarray:
        """MABO and recall at 0.5 and 0.7 [RESAMPLES x 3] on resampled images."""
        sums = []  # for each image, by class: best overlaps, objects; then objects found at 0.5 and 0.7
        for one, record in zip(found, records, strict=True):
            best = best_overlaps_of_first(one, record.boxes, np.array([len(one)]))[:, 0]
            weights = [np.bincount(record.labels, value, len(split.classes)) for value in (best, np.ones(len(best)))]
            sums.append(np.concatenate([*weights, [(best >= 0.5).sum(), (best >= 0.7).sum()]]))
        times = make_generator(0, "proposals").multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
        draws = times @ np.array(sums)
        overlaps, objects, hits = np.split(draws, [len(split.classes), 2 * len(split.classes)], axis=1)
        mabo = np.divide(overlaps, objects, out=np.full_like(overlaps, np.nan), where=objects > 0)
        return np.column_stack([np.nanmean(mabo, axis=1), hits / objects.sum(axis=1, keepdims=True)])

    headers = ["MABO", "recall 0.5", "recall 0.7", "average recall"]
    objects = sum(len(record.boxes) for record in records)
    print(f"{len(images)} images of {options.folder.name} {options.split}, {objects} objects\n")
    rows = [
        [name, mean_count(boxes[name]), seconds[name] / len(images), *measure(boxes[name])]
        for name in sorted(methods, key=seconds.__getitem__)
    ]
    print(format_table(["method", "boxes", "seconds", *headers], rows, decimals=3), end="\n\n")
    rows = []
    for ours, other in RIVALS:
        if {ours, other} <= methods.keys():
            cut = boxes[ours]
            if sum(map(len, cut)) > sum(map(len, boxes[other])):
                cut = [mine[: len(theirs)] for mine, theirs in zip(cut, boxes[other], strict=True)]
            better = np.subtract(measure(cut), measure(boxes[other]))[:3]
            low, high = np.quantile(resample(cut) - resample(boxes[other]), (0.025, 0.975), axis=0)
            cells = [f"{value:+.3f} ({start:+.3f} to {end:+.3f})" for value, start, end in zip(better, low, high, strict=True)]
            counts = f"{mean_count(cut)} / {mean_count(boxes[other])}"
            rows.append([f"{ours} - {other}", counts, *cells, f"{seconds[other] / seconds[ours]:.1f} x"])
    print("at no more boxes:")
    print(format_table(["difference", "boxes", *headers[:3], "faster"], rows), end="\n\n")

    rows = []
    for mode in [name for name in OWN if name in methods]:
        times: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(THREADED_ROUNDS):
            for threads in times:
                with ThreadPoolExecutor(threads) as pool:
                    start = time.perf_counter()
                    list(pool.map(methods[mode], images[:40]))
                    times[threads].append((time.perf_counter() - start) / len(images[:40]))
        ratios = [one / two for one, two in zip(times[1], times[2], strict=True)]
        spread = f"{min(ratios):.2f} - {max(ratios):.2f}"
        rows.append([mode, *(median(times[threads]) for threads in times), f"{median(ratios):.2f}", spread])
    print(f"wall seconds an image, median of {THREADED_ROUNDS}:")
    print(format_table(["mode", "one thread", "two threads", "ratio", "range"], rows, decimals=3))


if __name__ == "__main__":
    main()
