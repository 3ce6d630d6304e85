"""From scored regions to detections.

R-CNN scores every region for every class, then suppresses class by class (Girshick et al. 2014, section 2.2). The releases limit
the results, each in its own way:

- `rcnn_test.m` of rbgirshick/rcnn and `test.py` of rbgirshick/fast-rcnn limit the candidates before suppression: 100 per class
  and image (`Limits.max_per_image`), and 40 per class and image as the mean over the split (`select_detections`).
- `test.py` of rbgirshick/py-faster-rcnn limits the detections after suppression: 100 per image, of all classes together
  (`Limits.max_detections`), with a score above 0.05.

What a limit leaves out is counted.

Shape shorthand: n regions of one image, C classes, k candidates of one image.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.boxes import nms
from pipeline.detection.detections import NOTHING_LEFT_OUT, Detections, LeftOut
from pipeline.errors import PipelineError
from pipeline.files.npz import load_columns
from pipeline.files.writing import write_arrays

MAX_PER_IMAGE = 100  # rcnn_test.m: max_per_image, candidates per class and image
MEAN_PER_IMAGE = 40  # rcnn_test.m: ceil(100000 / 2500), mean number of candidates per class and image over the split
NMS_THRESHOLD = 0.3  # imdb_eval_voc.m of rbgirshick/rcnn
# Of each array in a file: the kind of its type, and its shape after the first side.
COLUMNS = {"class_index": ("i", ()), "score": ("f", ()), "boxes": ("f", (4,)), "survives": ("b", ())}


class Limits(NamedTuple):
    """What limits the detections of one image; 0 stands for no limit.

    `max_per_image` candidates per class take part in suppression; `nms_threshold` is the IoU above which the worse of two boxes
    is suppressed; `max_detections` of all classes stay after it.
    """

    max_per_image: int = MAX_PER_IMAGE
    nms_threshold: float = NMS_THRESHOLD
    max_detections: int = 0


RELEASE_LIMITS = Limits()


@dataclass(frozen=True, eq=False)
class Candidates:
    """The best regions of one image for every class. A limit over the split (`select_detections`) may take some of them away.

    `class_index` int32 [k], `score` float32 [k], `boxes` float32 [k x 4], by class, then falling score. `survives` bool [k]
    marks the detections: what non-maximum suppression within the class and the image's limit leave. `left_out` counts what the
    limits took; it is not stored in files.
    """

    class_index: np.ndarray
    score: np.ndarray
    boxes: np.ndarray
    survives: np.ndarray
    left_out: LeftOut = NOTHING_LEFT_OUT

    def without_suppressed(self) -> "Candidates":
        """The detections alone. Only a limit over the whole split needs the others."""
        return replace(self, **{name: getattr(self, name)[self.survives] for name in COLUMNS})


def top_scoring(
    scores: np.ndarray, boxes: np.ndarray, max_per_image: int = MAX_PER_IMAGE, nms_threshold: float = NMS_THRESHOLD,
    max_detections: int = 0,
) -> Candidates:
    """For each class the `max_per_image` best regions of one image, and which of them are detections; see `Limits`.

    `scores` [n x C]; a region scored -inf is not a candidate. `boxes` [n x 4], or [n x C x 4] where each class has moved them;
    clip them to the image first. Of equal scores the earlier region comes first. Raises PipelineError for a score of NaN or inf.
    """
    scores = np.asarray(scores, np.float32)
    boxes = np.asarray(boxes, np.float32)
    boxes = np.broadcast_to(boxes[:, None] if boxes.ndim == 2 else boxes, (*scores.shape, 4))
    wrong = np.argwhere(np.isnan(scores) | np.isposinf(scores))
    if len(wrong):
        region, label = wrong[0]
        fault = f"region {region}, class {label}: score {scores[region, label]}"
        raise PipelineError(f"{fault}; expected a number or -inf; check the detector's weights")
    order = np.argsort(-scores, axis=0, kind="stable")[: max_per_image or None]
    chosen = [best[scores[best, label] > -np.inf] for label, best in enumerate(order.T)]
    class_index = np.repeat(np.arange(len(chosen), dtype=np.int32), [len(best) for best in chosen])
    region = np.concatenate(chosen)
    left_out = int(np.count_nonzero(scores > -np.inf)) - len(region)
    score, boxes = scores[region, class_index], boxes[region, class_index]
    survives = np.zeros(len(region), bool)
    for label in range(len(chosen)):
        of_class = np.flatnonzero(class_index == label)
        survives[of_class[nms(boxes[of_class], score[of_class], nms_threshold)]] = True
    detections = np.flatnonzero(survives)
    surplus = detections[np.argsort(-score[detections], kind="stable")][max_detections or len(detections):]
    survives[surplus] = False
    return Candidates(class_index, score, boxes, survives, LeftOut(0, left_out, len(surplus)))


def split_threshold(scores: np.ndarray, num_images: int, mean_per_image: int = MEAN_PER_IMAGE) -> float:
    """The score that `mean_per_image` x `num_images` of one class's candidates reach, -inf where there are no more than that.

    `scores` [m] are those of all candidates of the class in the split, before suppression (`rcnn_test.m`: max_per_set).
    """
    surplus = len(scores) - mean_per_image * num_images
    return float(np.partition(scores, surplus)[surplus]) if surplus > 0 else -np.inf


def select_detections(
    candidates: Iterable[Candidates], image_ids: Sequence[str], classes: Sequence[str], mean_per_image: int = 0
) -> Detections:
    """The detections of a split: candidates that survive suppression and, with `mean_per_image`, reach their class's
    `split_threshold`.

    `candidates`, one for each image, are read twice, so that they need not be held in memory. The release thresholds
    first and suppresses then. That is the same: a candidate is only ever suppressed by a better one.
    NOTE: the release raises its threshold from image to image and keeps scores above it, so that a candidate with
    exactly the final score stays or goes by its image's position; here it stays.
    Raises PipelineError when there is not one `Candidates` for each image, or no image at all.
    """
    class_index, score = [], []
    for image in candidates:
        class_index.append(image.class_index)
        score.append(image.score)
    if not score or len(score) != len(image_ids):
        raise PipelineError(f"candidates of {len(score)} images for a split of {len(image_ids)}; give one for each image")
    classes_of, scores = np.concatenate(class_index), np.concatenate(score)
    thresholds = np.full(len(classes), -np.inf, np.float32)
    for label in range(len(classes) if mean_per_image else 0):
        thresholds[label] = split_threshold(scores[classes_of == label], len(image_ids), mean_per_image)
    kept = []
    for number, image in enumerate(candidates):
        keep = image.survives & (image.score >= thresholds[image.class_index])
        kept.append((np.full(keep.sum(), number), image.class_index[keep], image.score[keep], image.boxes[keep]))
    return Detections(tuple(image_ids), tuple(classes), *map(np.concatenate, zip(*kept, strict=True)))


def save_candidates(path: Path, candidates: Sequence[Candidates]) -> None:
    """Writes the candidates of several images, a shard, to the .npz file `path`; equal candidates give equal bytes."""
    arrays = {name: np.concatenate([getattr(image, name) for image in candidates]) for name in COLUMNS}
    write_arrays(path, {"counts": np.array([len(image.score) for image in candidates], np.int32), **arrays})


def load_candidates(path: Path) -> list[Candidates]:
    """The candidates that `save_candidates` wrote to `path`, one for each image. Raises PipelineError for any other file."""
    arrays = load_columns(path, {"counts": ("i", ()), **COLUMNS})
    counts = arrays.pop("counts")
    if (counts < 0).any() or {len(array) for array in arrays.values()} != {int(counts.sum())}:
        raise PipelineError(f"{path}: not a whole file of candidates (as many as it counts); make it anew")
    ends = np.cumsum(counts)[:-1]
    pieces = {name: np.split(array, ends) for name, array in arrays.items()}
    return [Candidates(**dict(zip(pieces, image, strict=True))) for image in zip(*pieces.values(), strict=True)]
