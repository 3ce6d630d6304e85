"""How well boxes that are there before training fit the objects: the anchors of Faster R-CNN, and region proposals.

The fit of an object is its largest IoU with any of an image's boxes. Anchors count only where they lie wholly in the scaled
image, as in training. Objects that the evaluation leaves out do not count.

Shape shorthand: O objects of all images.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.boxes import iou
from pipeline.datasets.records import ImageRecord
from pipeline.faster_rcnn.anchors import BASE, RATIOS, SCALES, generate_anchors, grid_anchors, inside

LEVELS = (0.5, 0.7)  # at 0.7 and more an anchor is an object to the proposal network


@dataclass(frozen=True)
class AnchorSet:
    """Anchors on images that are scaled to `shorter` pixels of the shorter side, but at most `longest` of the longer one.

    Defaults: those of rbgirshick/py-faster-rcnn, and of today's Faster R-CNN for all backbones but `tiny`.
    """

    shorter: int = 600
    longest: int = 1000
    scales: Sequence[float] = SCALES
    ratios: Sequence[float] = RATIOS

    def best(self, image: ImageRecord) -> np.ndarray:
        """The largest IoU of each of the image's objects that count with an anchor: [n]."""
        from pipeline.networks.whole_images import Scaling  # needs torch, which starts slowly

        scaling = Scaling.of(image.height, image.width, self.shorter, self.longest)
        height, width = scaling.size
        rows, columns = -(-height // BASE), -(-width // BASE)
        anchors = grid_anchors(generate_anchors(self.scales, self.ratios), rows, columns, BASE)
        anchors = anchors[inside(anchors, height, width)]
        return iou(scaling.apply(image.boxes[image.counted]), anchors).max(axis=1, initial=0)

    def to_json(self) -> dict:
        return {"shorter": self.shorter, "longest": self.longest, "scales": list(self.scales), "ratios": list(self.ratios)}


RELEASE = AnchorSet()


def measure(images: Iterable[ImageRecord], best_of: Callable[[ImageRecord], np.ndarray], classes: Sequence[str]) -> dict:
    """How well the objects are covered, for all and by class; `best_of` gives the largest IoU of each object that counts."""
    best = [np.zeros(0)]
    labels = [np.zeros(0, np.int64)]
    for image in images:
        best.append(best_of(image))
        labels.append(image.labels[image.counted])
    overlaps, label = np.concatenate(best), np.concatenate(labels)
    by_class = {name: _summary(overlaps[label == number]) for number, name in enumerate(classes)}
    return {**_summary(overlaps), "classes": by_class}


def _summary(overlaps: np.ndarray) -> dict:
    """The mean of the best overlaps, and the share of objects that reach each of LEVELS; None without objects."""
    shares = {f"recall_{round(100 * level)}": _mean(overlaps >= level) for level in LEVELS}
    return {"objects": len(overlaps), "mean_iou": _mean(overlaps), **shares}


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
