"""From scored regions to detections, as in the R-CNN release.

R-CNN scores every region for every class, then suppresses class by class (Girshick et al. 2014, section 2.2); which candidates
take part in that follows `rcnn_test.m` of rbgirshick/rcnn.

Shape shorthand: n regions of one image, C classes, k candidates of one image.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.boxes import nms
from pipeline.detection.detections import Detections
from pipeline.errors import PipelineError
from pipeline.files.npz import load_columns
from pipeline.files.writing import write_arrays

MAX_PER_IMAGE = 100  # rcnn_test.m: max_per_image, candidates per class and image
PER_IMAGE = 40  # rcnn_test.m: ceil(100000 / 2500), mean number of candidates per class and image over the split
NMS_THRESHOLD = 0.3  # imdb_eval_voc.m of rbgirshick/rcnn
# Of each array in a file: the kind of its type, and its shape after the first side.
COLUMNS = {"class_index": ("i", ()), "score": ("f", ()), "boxes": ("f", (4,)), "survives": ("b", ())}


class Limits(NamedTuple):
    """The largest number of candidates per class and image, and the IoU above which the worse of two boxes is suppressed."""

    max_per_image: int = MAX_PER_IMAGE
    nms_threshold: float = NMS_THRESHOLD


RELEASE_LIMITS = Limits()

@dataclass(frozen=True, eq=False)
class Candidates:
    """The best regions of one image for every class; the split's thresholds (`select_detections`) take some of them away.

    `class_index` int32 [k], `score` float32 [k], `boxes` float32 [k x 4], by class, then falling score. `survives` bool [k]
    marks those that non-maximum suppression within the class leaves.
    """

    class_index: np.ndarray
    score: np.ndarray
    boxes: np.ndarray
    survives: np.ndarray


def top_scoring(
    scores: np.ndarray, boxes: np.ndarray, max_per_image: int = MAX_PER_IMAGE, nms_threshold: float = NMS_THRESHOLD
) -> Candidates:
    """For each class the `max_per_image` best regions of one image, and which of them survive suppression (`rcnn_test.m`).

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
    order = np.argsort(-scores, axis=0, kind="stable")[:max_per_image]
    chosen = [best[scores[best, label] > -np.inf] for label, best in enumerate(order.T)]
    class_index = np.repeat(np.arange(len(chosen), dtype=np.int32), [len(best) for best in chosen])
    region = np.concatenate(chosen)
    score, boxes = scores[region, class_index], boxes[region, class_index]
    survives = np.zeros(len(region), bool)
    for label in range(len(chosen)):
        of_class = np.flatnonzero(class_index == label)
        survives[of_class[nms(boxes[of_class], score[of_class], nms_threshold)]] = True
    return Candidates(class_index, score, boxes, survives)


def split_threshold(scores: np.ndarray, num_images: int, per_image: int = PER_IMAGE) -> float:
    """The score that `per_image` x `num_images` of one class's candidates reach, -inf where there are no more than that.

    `scores` [m] are those of all candidates of the class in the split, before suppression (`rcnn_test.m`: max_per_set).
    """
    surplus = len(scores) - per_image * num_images
    return float(np.partition(scores, surplus)[surplus]) if surplus > 0 else -np.inf


def select_detections(
    candidates: Iterable[Candidates], image_ids: Sequence[str], classes: Sequence[str], per_image: int = PER_IMAGE
) -> Detections:
    """The detections of a split: candidates that survive suppression and reach their class's `split_threshold`.

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
    thresholds = np.array(
        [split_threshold(scores[classes_of == label], len(image_ids), per_image) for label in range(len(classes))], np.float32
    )
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
