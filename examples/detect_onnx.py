"""Detects objects in a photograph by ONNX files, without torch and without this project: NumPy, Pillow and onnxruntime suffice.

    luigi --module tasks ExportDetector --chain faster-rcnn --format onnx
    python examples/detect_onnx.py cache/ExportDetector/KEY photo.jpg

Copy this file to wherever the folder goes. Boxes are (x1, y1, x2, y2) in pixels, 0-based, x2 and y2 exclusive.

Shape shorthand: H x W pixels; D channels, h x w cells of a map; N anchors; R regions, C classes; k detections.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


class OnnxDetector:
    """The detector in `folder`. `detect(pixels)` takes uint8 RGB [H x W x 3]; it gives boxes [k x 4], scores and labels [k], best
    first, and for Mask R-CNN the masks [k x 28 x 28] of the boxes, else None."""

    def __init__(self, folder):
        folder = Path(folder)
        self.settings = json.loads((folder / "onnx.json").read_text())
        self.classes = self.settings["classes"]
        self.is_faster_rcnn = self.settings["chain"] == "faster-rcnn"
        names = ("maps", "regions") if self.is_faster_rcnn else ("network",)
        self.networks = {name: onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in names}

    def detect(self, pixels):
        return faster_rcnn(self, pixels) if self.is_faster_rcnn else torchvision_detector(self, pixels)

    def run(self, network, **inputs):
        return self.networks[network].run(None, inputs)


# Both kinds of detectors.

def resize(pixels, height, width):
    """Bilinear, half-pixel centres, no antialiasing: float32 [height x width x 3]."""

    def blend(values, target):  # along the first side
        place = np.maximum((np.arange(target) + 0.5) * len(values) / target - 0.5, 0)
        first = place.astype(int)
        weight = (place - first).astype(np.float32)[:, None, None]
        before, after = values[first], values[np.minimum(first + 1, len(values) - 1)]
        return before + weight * (after - before)

    rows = blend(pixels.astype(np.float32), height)
    return blend(rows.transpose(1, 0, 2), width).transpose(1, 0, 2)


def clip(boxes, height, width):
    return np.clip(boxes, 0, np.float32([width, height, width, height]))


def best_first(boxes, scores, labels, settings, *, suppression=1.0, masks=None):
    """Within each class the `max_per_image` best, of which suppression leaves some; of these the `max_detections` best."""
    kept = []
    for label in range(len(settings["classes"])):
        of_class = np.flatnonzero(labels == label)
        order = of_class[np.argsort(-scores[of_class], kind="stable")][: settings["max_per_image"] or None]
        kept.append(order if suppression == 1 else order[suppress(boxes[order], suppression)])
    kept = np.concatenate(kept)
    kept = kept[np.argsort(-scores[kept], kind="stable")][: settings["max_detections"] or None]
    return boxes[kept], scores[kept], labels[kept], None if masks is None else masks[kept]


# Faster R-CNN.

def faster_rcnn(detector, pixels):
    settings, (height, width, _) = detector.settings, pixels.shape
    # 1. The scaled image in its frame, and the map.
    factor = min(settings["shorter_side"] / min(height, width), settings["longest_side"] / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    border, stride = settings["border"], settings["stride"]
    sides = [2 * border + max(side, stride - 2 * border) for side in size]
    if settings["whole_cells"]:
        sides = [(border + side + stride - 1) // stride * stride for side in size]
    image = np.zeros((*sides, 3), np.float32)
    colours = (resize(pixels, *size) - np.float32(settings["mean"])) / np.float32(settings["std"])
    image[border : border + size[0], border : border + size[1]] = colours
    conv_map, scores, deltas = detector.run("maps", images=image.transpose(2, 0, 1)[None])
    # 2. Proposals, and those of them that pool different cells.
    factors = np.float32([size[1] / width, size[0] / height])
    boxes = propose(settings, scores, deltas, cells=conv_map.shape[1:], size=size, factors=factors) / np.tile(factors, 2)
    rois = (boxes - np.float32([0, 0, 1, 1])) * np.tile(factors, 2)  # corners that belong to the region
    pool, places = (align, rois) if settings["pooling"] == "align" else (pool_bins, round_corners(rois / stride))
    first = np.sort(np.unique(places, axis=0, return_index=True)[1])
    # 3. Scores and boxes of each region and class.
    pooled = pool(conv_map, places[first], settings)
    scores, deltas = detector.run("regions", pool5=pooled.reshape(len(pooled), int(np.prod(pooled.shape[1:]))))
    count = scores.shape[1]
    moved = clip(decode(np.repeat(boxes[first], count, axis=0), deltas.reshape(-1, 4)), height, width)
    labels = np.tile(np.arange(count), len(first))
    return best_first(moved, scores.ravel(), labels, settings, suppression=settings["nms_threshold"])


def propose(settings, scores, deltas, *, cells, size, factors):
    """Proposals in the scaled image, best first: [R x 4]."""
    y, x = np.mgrid[: cells[0], : cells[1]].reshape(2, -1, 1) * settings["stride"]
    anchors = (np.concatenate([x, y, x, y], axis=1)[:, None] + np.array(settings["anchors"])).reshape(-1, 4).astype(np.float32)
    deltas[:, 2:] = np.minimum(deltas[:, 2:], np.float32(np.log(settings["largest_growth"])))
    boxes = clip(decode(anchors, deltas), *size)
    large = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= settings["min_side"] * factors).all(axis=1))
    best = large[np.argsort(-scores[large], kind="stable")][: settings["before_nms"] or None]
    return boxes[best[suppress(boxes[best], settings["proposal_nms_threshold"], settings["after_nms"])]]


def decode(boxes, deltas):
    """Boxes [N x 4] moved by (dx, dy, dw, dh) [N x 4]."""
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + 0.5 * size + deltas[:, :2] * size
    half = 0.5 * np.exp(deltas[:, 2:]) * size
    return np.concatenate([centre - half, centre + half], axis=1)


def suppress(boxes, threshold, limit=sys.maxsize):
    """The numbers of the boxes that stay, given best first: those without an IoU above `threshold` with one before."""
    boxes = boxes.astype(np.float64)
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    kept, rest = [], np.arange(len(boxes))
    while len(rest) and len(kept) < limit:
        best, rest = rest[0], rest[1:]
        kept.append(best)
        low, high = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = (high - low).clip(0).prod(axis=1)
        union = areas[best] + areas[rest] - shared
        rest = rest[shared <= threshold * union]
    return np.array(kept, int)


def round_corners(corners):
    """Half away from zero, as in the release."""
    corners = corners.astype(np.float64)
    return np.trunc(corners + np.copysign(0.5, corners)).astype(int)


def pool_bins(conv_map, places, settings):
    """RoI pooling (Girshick 2015): maxima or means of the bins of regions between cells [R x 4]: [R x D x grid x grid]."""
    grid, limits = settings["grid"], conv_map.shape[:0:-1]
    reduce = np.mean if settings["pooling"] == "average" else np.max
    pooled = np.zeros((len(places), len(conv_map), grid, grid), np.float32)
    for number, (x1, y1, x2, y2) in enumerate(places):
        edges = []
        for low, high, limit in (x1, x2, limits[0]), (y1, y2, limits[1]):
            steps = np.arange(grid + 1, dtype=np.float32) * (np.float32(max(high - low + 1, 1)) / np.float32(grid))
            first, end = np.floor(steps[:-1]).astype(int), np.ceil(steps[1:]).astype(int)
            edges.append(np.clip(np.stack([first, end], axis=1) + low, 0, limit))
        columns, rows = edges
        for j, (top, bottom) in enumerate(rows):
            for i, (left, right) in enumerate(columns):
                if top < bottom and left < right:  # an empty bin is 0
                    pooled[number, :, j, i] = reduce(conv_map[:, top:bottom, left:right], axis=(1, 2))
    return pooled


def align(conv_map, rois, settings):
    """RoIAlign (He et al. 2017): a bin is the mean of 2 x 2 samples between cells: [R x D x grid x grid]."""
    grid = settings["grid"]
    edges = (rois + np.array([-0.5, -0.5, 0.5, 0.5]) - settings["centre"]) / settings["stride"]
    weights = []
    for side, size in (0, conv_map.shape[2]), (1, conv_map.shape[1]):
        low, high = edges[:, side, None], edges[:, side + 2, None]
        places = low + (high - low) * (np.arange(2 * grid) + 0.5) / (2 * grid)
        distances = np.abs(np.clip(places, 0, size - 1)[..., None] - np.arange(size))
        of_samples = np.maximum(1 - distances, 0) * ((places >= -1) & (places <= size))[..., None]
        weights.append(of_samples.reshape(-1, grid, 2, size).mean(axis=2).astype(np.float32))
    columns, rows = weights
    return rows[:, None] @ conv_map @ columns.transpose(0, 2, 1)[:, None]


# SSD, RetinaNet, Mask R-CNN and torchvision's other models: suppression is in the network.

def torchvision_detector(detector, pixels):
    settings, (height, width, _) = detector.settings, pixels.shape
    # 1. A very narrow image gets a border; then the network's size.
    least = -(-max(height, width) // settings["narrowest"])
    pixels = np.pad(pixels, ((0, max(0, least - height)), (0, max(0, least - width)), (0, 0)))
    sides = pixels.shape[:2]
    factor = min(settings["shorter_side"] / min(sides), settings["longest_side"] / max(sides))
    size = settings["fixed_size"] or [int(side * factor) for side in sides]
    image = resize(pixels / np.float32(255), *size).transpose(2, 0, 1)
    # 2. The network, and its boxes in the photograph.
    boxes, scores, labels, *masks = detector.run("network", image=np.ascontiguousarray(image))
    boxes = clip(boxes * np.float32(np.tile(sides, 2) / np.tile(size, 2))[[1, 0, 3, 2]], height, width)
    masks = np.rint(masks[0][:, 0] * 255).astype(np.uint8) if masks else None
    return best_first(boxes, scores, labels - 1, settings, masks=masks)  # class 0 is the background


def main(folder, photograph):
    detector = OnnxDetector(folder)
    pixels = np.asarray(ImageOps.exif_transpose(Image.open(photograph)).convert("RGB"))
    boxes, scores, labels, _ = detector.detect(pixels)
    for box, score, label in zip(boxes.tolist(), scores, labels, strict=True):
        print(f"{detector.classes[label]} {score:.3f} {' '.join(f'{side:.1f}' for side in box)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
