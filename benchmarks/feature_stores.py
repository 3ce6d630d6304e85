"""What compression of feature stores saves and costs: bytes a region, and the seconds to write, read and train SVMs.

    python -m benchmarks.feature_stores CACHE/ExtractFeatures/KEY [--images 50] [--runs 3]

Copies the first images of a store into new stores, one for each compression. Prints the least seconds of `runs`, with one thread.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.feature_store import COMPRESSIONS, FeatureStore, FeatureWriter
from pipeline.rcnn.scaling import feature_scale
from pipeline.rcnn.svm import train_svms
from pipeline.rcnn.svm_settings import SvmSettings
from pipeline.seeding import make_generator
from pipeline.tables import format_table
from tasks.engine.artefacts import Artefact
from tasks.engine.manifest import read_manifest
from tasks.engine.processes import limited_threads
from tasks.features.stores import open_features

HEADERS = ["compression", "bytes a region", "share of float32", "write s", "read s", "SVMs s", "SVMs CPU s"]


def open_store(folder: Path) -> FeatureStore:
    """The store in the folder of an artefact of `ExtractFeatures`."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise SystemExit(f"{folder}: not an artefact; see `rcnn-cache ls`")
    return open_features(Artefact(folder.parents[1], manifest["stage"], manifest["key"]))


def write(store: FeatureStore, images: int, path: Path, compression: str) -> None:
    with FeatureWriter(path, store.num_features, store.classes, {}, compression=compression) as writer:
        for number in range(images):
            writer.append(store.image_ids[number], replace(store.read(number), repeated=None))


def train(path: Path) -> None:
    store = FeatureStore([path])
    train_svms(store, feature_scale(store, make_generator(0, "feature scale")), make_generator(0, "svm"), SvmSettings())


def read(path: Path) -> None:
    for _ in FeatureStore([path]):
        pass


def least(function, runs: int) -> tuple[float, float]:
    """The least seconds and CPU seconds of `runs` calls."""
    spent = []
    for _ in range(runs):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        spent.append((time.perf_counter() - wall, time.process_time() - cpu))
    return tuple(map(min, zip(*spent, strict=True)))


def measure(store: FeatureStore, images: int, runs: int) -> list[list]:
    """A row for each compression."""
    rows = []
    regions = sum(map(store.num_rows, range(images)))
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.h5" for name in COMPRESSIONS}
        for name, path in paths.items():
            seconds, _ = least(lambda path=path, name=name: write(store, images, path, name), 1)
            size = path.stat().st_size / regions
            reading, _ = least(lambda path=path: read(path), runs)
            rows.append([name, round(size), size / (4 * store.num_features), seconds, reading])
        train(path)  # compiles
        for row, path in zip(rows, paths.values(), strict=True):
            row += least(lambda path=path: train(path), runs)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, nargs="+", help="artefacts of ExtractFeatures, CACHE/ExtractFeatures/KEY")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    for folder in options.store:
        store = open_store(folder)
        images = min(options.images, store.num_images)
        zeros = np.mean([np.mean(store.read(number).features == 0) for number in range(images)])
        print(f"{folder}: {store.num_features} values a region, {zeros:.0%} of them 0; {images} images")
        with limited_threads(1):
            print(format_table(HEADERS, measure(store, images, options.runs)))


if __name__ == "__main__":
    main()
