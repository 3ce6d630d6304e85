"""Detects objects in a photograph by an ONNX file, without torch and without this project: NumPy, Pillow and onnxruntime suffice.

    luigi --module tasks ExportDetector --chain faster-rcnn --format onnx
    python examples/detect_onnx.py cache/ExportDetector/KEY photo.jpg

Copy this file to wherever the folder goes. Boxes are (x1, y1, x2, y2) in pixels, 0-based, x2 and y2 exclusive.
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
        self.settings = json.loads((Path(folder) / "onnx.json").read_text())
        self.classes = self.settings["classes"]
        self.network = onnxruntime.InferenceSession(Path(folder) / "network.onnx")

    def detect(self, pixels):
        settings, (height, width, _) = self.settings, pixels.shape
        # 1. Some networks want a border around a very narrow image; then their size.
        least = -(-max(height, width) // (settings["narrowest"] or max(height, width)))
        pixels = np.pad(pixels, ((0, max(0, least - height)), (0, max(0, least - width)), (0, 0)))
        sides = pixels.shape[:2]
        factor = min(settings["shorter_side"] / min(sides), settings["longest_side"] / max(sides))
        size = settings["fixed_size"] or [max(1, (round if settings["rounds"] else int)(side * factor)) for side in sides]
        image, factors = resize(pixels / np.float32(255), *size).transpose(2, 0, 1), np.divide(size, sides)[::-1]
        # 2. The network, and what lies in the photograph.
        inputs = {"image": np.ascontiguousarray(image), "factors": factors.astype(np.float32)}
        boxes, scores, labels, *masks = self.network.run(None, inputs)
        boxes = np.clip(boxes, 0, np.float32([width, height, width, height]))
        return boxes, scores, labels - 1, np.rint(masks[0][:, 0] * 255).astype(np.uint8) if masks else None


def resize(pixels, height, width):
    """Bilinear, half-pixel centres, no antialiasing: float32 [height x width x 3]."""

    def blend(values, target):  # along the first side
        place = np.maximum((np.arange(target) + 0.5) * len(values) / target - 0.5, 0)
        first = place.astype(int)
        weight = (place - first).astype(np.float32)[:, None, None]
        before, after = values[first], values[np.minimum(first + 1, len(values) - 1)]
        return before + weight * (after - before)

    return blend(blend(pixels, height).transpose(1, 0, 2), width).transpose(1, 0, 2)


def main(folder, photograph):
    detector = OnnxDetector(folder)
    pixels = np.asarray(ImageOps.exif_transpose(Image.open(photograph)).convert("RGB"))
    boxes, scores, labels, _ = detector.detect(pixels)
    for box, score, label in zip(boxes.tolist(), scores, labels, strict=True):
        print(f"{detector.classes[label]} {score:.3f} {' '.join(f'{side:.1f}' for side in box)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
