"""Compares the crops per second of `pipeline.rcnn.warp` with OpenCV's bilinear resize and normalisation of the same windows.

Run from the repository's root: `python -m benchmarks.warp`. One call warps one image's regions. Each figure is the best of
several rounds. Both sides take turns, so that the ratio holds on a busy machine too. A call uses one thread on either side.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from pipeline.rcnn.warp import crop_geometry, warp

MEAN, STD = np.array([123.7, 116.3, 103.5], np.float32), np.array([58.4, 57.1, 57.4], np.float32)
PADDING = {227: 16, 64: 4}


def opencv_warp(image, boxes, out, padding):
    """The same crops by OpenCV in its fastest form: normalised once per image, resized directly into the batch."""
    image = (image - MEAN) / STD
    out[:] = 0
    geometry = crop_geometry(boxes, *image.shape[:2], out.shape[1], padding)
    for crop, (x1, y1, x2, y2), (left, top), (width, height) in zip(out, *geometry, strict=True):
        place = crop[top : top + height, left : left + width]
        cv2.resize(image[y1:y2, x1:x2], (width, height), dst=place, interpolation=cv2.INTER_LINEAR)


def our_warp(image, boxes, out, padding):
    warp(image, boxes, out, MEAN, STD, padding=padding)


def random_boxes(rng, image, count):
    """Boxes inside `image`, small ones more often, with sides from 20 pixels (selective search's minimum) to the whole image."""
    limits = np.array([image.shape[1], image.shape[0]])
    sides = 20 * (limits / 20) ** rng.random((count, 2))
    corners = rng.random((count, 2)) * (limits - sides)
    return np.concatenate([corners, corners + sides], axis=1).round()


def crops_per_second(functions, image, boxes, batches, padding, rounds):
    """The best rate of each function. Each thread has its own batch."""
    best = [0.0] * len(functions)
    with ThreadPoolExecutor(len(batches)) as pool:
        for _ in range(rounds):
            for index, function in enumerate(functions):
                start = time.perf_counter()
                list(pool.map(lambda batch: function(image, boxes, batch, padding), batches))  # noqa: B023
                best[index] = max(best[index], len(batches) * len(boxes) / (time.perf_counter() - start))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (375, 500, 3), np.uint8), (0, 0), 2)
    boxes = random_boxes(rng, image, arguments.boxes)
    print("crop threads  ours/s  ms/crop  OpenCV/s  ratio  largest difference (grey levels)")
    for size, padding in PADDING.items():
        batches = [np.empty((len(boxes), size, size, 3), np.float32) for _ in range(2)]
        our_warp(image, boxes, batches[0], padding)
        opencv_warp(image, boxes, batches[1], padding)
        difference = np.abs((batches[0] - batches[1]) * STD).max()
        for threads in (1, 2):
            ours, theirs = crops_per_second([our_warp, opencv_warp], image, boxes, batches[:threads], padding, arguments.rounds)
            figures = f"{ours:7.0f} {1e3 * threads / ours:8.4f} {theirs:9.0f} {ours / theirs:6.2f}  {difference:.1e}"
            print(f"{size:4} {threads:7} {figures}")


if __name__ == "__main__":
    main()
