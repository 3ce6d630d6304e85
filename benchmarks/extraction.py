"""Compares whole feature extraction (reading, warping, network, writing) with the bare network on ready-made batches.

    python -m benchmarks.extraction [--backbone squeezenet1_0] [--images 8] [--regions 600] [--rounds 3]

Both run in turns within one process, with the same backbone, precision, batch size and threads; weights are random. The images
are made like those of the embedded data set, enlarged to 500 x 375, and read from JPEG files. Also prints the peak memory.
"""

import argparse
import hashlib
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.datasets.digits import make_images
from pipeline.datasets.records import ImageRecord
from pipeline.feature_store import FeatureWriter
from pipeline.images.reading import ImageCache
from pipeline.networks.backbones import make_backbone
from pipeline.networks.compute import DTYPES, for_inference, prepare
from pipeline.networks.variants import NAMES
from pipeline.rcnn.crop_memory import crops_to_tensor
from pipeline.rcnn.features import Extraction, join_regions, region_features, write_features
from tasks.engine.memory import peak_memory, reset_peak_memory
from tasks.engine.processes import available_cores
from tasks.networks.precision import has_fast_bfloat16

BATCH_SIZE = 32


def make_records(folder: Path, count: int) -> list[ImageRecord]:
    """`count` photographs of 500 x 375 as JPEG files in `folder`."""
    records = []
    for image in make_images("train", count, seed=0):
        path = folder / f"{image.id}.jpg"
        Image.fromarray(image.pixels).resize((500, 375)).save(path, quality=90)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
        records.append(ImageRecord(image.id, path.name, digest, 500, 375, *nothing))
    return records


def random_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    """Boxes with sides from 20 pixels to the whole image, like region proposals."""
    size = generator.uniform(20, (500, 375), (count, 2))
    corner = generator.uniform(0, (500, 375) - size)
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="squeezenet1_0", choices=NAMES)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--regions", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    precision = "bfloat16" if has_fast_bfloat16("cpu") else "float32"
    device = prepare("cpu", available_cores())
    backbone = for_inference(make_backbone(options.backbone), device, precision)
    crops = options.images * options.regions
    ready = np.random.default_rng(0).standard_normal((BATCH_SIZE, backbone.crop_size, backbone.crop_size, 3), np.float32)
    batch = crops_to_tensor(ready, device, DTYPES[precision])

    def bare() -> None:
        with torch.inference_mode():
            for first in range(0, crops, BATCH_SIZE):
                backbone(batch[: min(BATCH_SIZE, crops - first)], "pool5")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generator = np.random.default_rng(1)
        records = make_records(folder, options.images)
        regions = [join_regions(record, random_boxes(generator, options.regions)) for record in records]

        def features():
            return region_features(
                regions, ImageCache(folder, 0).read, backbone, "pool5", Extraction(precision, 16, BATCH_SIZE, device)
            )

        def whole() -> None:
            writer = FeatureWriter(folder / "features.h5", backbone.sizes["pool5"], ("object",), {})
            write_features(regions, features(), writer, 1)
            writer.close()

        with torch.inference_mode():
            backbone(batch, "pool5")
        next(features())  # numba compiles the warp
        reset_peak_memory()
        seconds: dict[str, list[float]] = {"bare": [], "whole": []}
        for _ in range(options.rounds):
            for label, run in (("bare", bare), ("whole", whole)):
                start = time.perf_counter()
                run()
                seconds[label].append(time.perf_counter() - start)
    best = {label: min(values) for label, values in seconds.items()}
    print(f"{options.backbone}, {precision}, batches of {BATCH_SIZE}, {available_cores()} threads, {crops} crops per round")
    print(f"bare network      {1000 * best['bare'] / crops:7.3f} ms per crop")
    print(f"whole extraction  {1000 * best['whole'] / crops:7.3f} ms per crop")
    print(f"share of the bare network's throughput: {best['bare'] / best['whole']:.1%}; peak memory {peak_memory() / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
