"""Detection in tiles: small objects of a large photograph, which scaling the whole photograph down would lose.

1. The photograph is cut into square tiles that overlap. The detector looks at each, and at the whole photograph for objects that
   are larger than a tile.
2. A box at an inner border of its tile is *cut*: its object may go on beyond the border.
3. Boxes that are not cut suppress each other class by class, as the detector's own suppression does.
4. A cut box goes if it overlaps a box that stays as much, or if most of it lies inside such a box: it is a part of the same
   object. Cut boxes are compared with those that are not cut first, then with better cut ones.

An object that is smaller than the overlap is whole in one tile at least, so it is found once.

Shape shorthand: N boxes, T tiles.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pipeline import boxes as box_algebra
from pipeline.detection.detections import ImageDetections, LeftOut

Detect = Callable[[np.ndarray, str], ImageDetections]
NEAR = 0.01  # ours, of a tile's side: a box that ends so near the border is cut, since boxes are not exact to the pixel
MOST = 0.5  # ours: a cut box with a larger share inside another box is a part of that one's object


@dataclass(frozen=True)
class Tiling:
    """Tiles of `side` pixels, of which neighbours share at least the part `overlap` of a side."""

    side: int
    overlap: float = 0.2

    def starts(self, length: int) -> list[int]:
        """The first pixels of the tiles along `length` pixels, spread evenly from the first pixel to the last."""
        if length <= self.side:
            return [0]
        step = max(1, int(self.side * (1 - self.overlap)))
        count = -(-(length - self.side) // step) + 1  # rounded up
        return [int(start) for start in np.linspace(0, length - self.side, count)]

    def tiles(self, height: int, width: int) -> np.ndarray:
        """The tiles x1, y1, x2, y2 of an image, int64 [T x 4], row by row."""
        return np.array([
            [x, y, min(x + self.side, width), min(y + self.side, height)] for y in self.starts(height) for x in self.starts(width)
        ])


def detect_in_tiles(detect: Detect, pixels: np.ndarray, name: str, tiling: Tiling, nms_threshold: float) -> ImageDetections:
    """The detections in `pixels` [height x width x 3], merged; `detect(pixels, name)` finds those of one tile, best first.

    An image that fits into one tile is detected in as it is. `left_out` adds up what the detector's limits left out in the tiles.
    """
    height, width, _ = pixels.shape
    tiles = tiling.tiles(height, width)
    whole = detect(pixels, name)
    if len(tiles) == 1:
        return whole
    parts, cuts = [whole], [np.zeros(len(whole), bool)]
    for number, (x1, y1, x2, y2) in enumerate(tiles):
        part = detect(np.ascontiguousarray(pixels[y1:y2, x1:x2]), f"{name} tile {number}")
        moved = part.boxes + np.array([x1, y1, x1, y1], part.boxes.dtype)
        parts.append(replace(part, boxes=moved))
        cuts.append(is_cut(moved, tiles[number], height, width, NEAR * tiling.side))
    return _merge(parts, np.concatenate(cuts), nms_threshold)


def is_cut(boxes: np.ndarray, tile: np.ndarray, height: int, width: int, near: float) -> np.ndarray:
    """Which `boxes` [N x 4] end within `near` pixels of a border of their `tile` that is not a border of the image: bool [N]."""
    inner = tile != np.array([0, 0, width, height])
    return ((np.abs(boxes - tile) <= near) & inner).any(axis=1)


def _merge(parts: list[ImageDetections], cut: np.ndarray, nms_threshold: float) -> ImageDetections:
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "labels")]
    boxes, scores, labels = columns
    chosen = [np.zeros(0, np.int64)]
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        chosen.append(rows[merged(boxes[rows], scores[rows], cut[rows], nms_threshold)])
    rows = np.concatenate(chosen)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    left_out = LeftOut(*(sum(counts) for counts in zip(*(part.left_out for part in parts))))
    masks = None if parts[0].masks is None else np.concatenate([part.masks for part in parts])[rows]
    return ImageDetections(boxes[rows], scores[rows], labels[rows], parts[0].classes, left_out, masks)


def merged(boxes: np.ndarray, scores: np.ndarray, cut: np.ndarray, nms_threshold: float) -> np.ndarray:
    """The rows [K] of one class's boxes that stay. `boxes` [N x 4], `scores` [N], `cut` bool [N]."""
    entire, parts = np.flatnonzero(~cut), np.flatnonzero(cut)
    kept = entire[box_algebra.nms(boxes[entire], scores[entire], nms_threshold)]  # 3.
    parts = parts[~_belongs(boxes[parts], boxes[kept], nms_threshold).any(axis=1)]  # 4.
    parts = parts[np.argsort(-scores[parts], kind="stable")]
    while len(parts):
        first, parts = parts[:1], parts[1:]
        kept = np.append(kept, first)
        parts = parts[~_belongs(boxes[parts], boxes[first], nms_threshold)[:, 0]]
    return kept


def _belongs(boxes: np.ndarray, others: np.ndarray, nms_threshold: float) -> np.ndarray:
    """Whether each cut box is of the object of each of the others: bool [N x M]."""
    return (box_algebra.iou(boxes, others) > nms_threshold) | (box_algebra.share_inside(boxes, others) > MOST)
