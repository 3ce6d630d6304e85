"""Errors of classification + localisation, as ILSVRC counts them: five guesses for each image, each a class and a box.

An image counts as right if one guess has its class *and* a box whose IoU with any object of this class is > 0.5. The errors are
shares of images. The box is judged alone too, as if the class were known (the first protocol of VGG, appendix A), and so is the
mean box of the training images, which has seen no pixel.

The class of an image is that of its largest object. Images without objects are left out.

Shape shorthand: M images, K guesses of each, best first, C classes, F figures, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.boxes import iou
from pipeline.errors import PipelineError

THRESHOLD = 0.5  # an IoU above it is right (ILSVRC)
GUESSES = 5
# By image: 1 for an error or, for the last two, an IoU.
FIGURES = (
    "top1_error", "top5_error", "top1_class_error", "top5_class_error", "box_error", "mean_box_error", "mean_iou", "mean_box_iou",
)


@dataclass(frozen=True)
class Truth:
    """`label` int [M] of each image, and `boxes`: of each image those of that label, [n x 4] with n > 0."""

    label: np.ndarray
    boxes: Sequence[np.ndarray]

    def best_overlaps(self, boxes: np.ndarray) -> np.ndarray:
        """The largest IoU of each of `boxes` [M x K x 4] with a box of the image's label: [M x K]."""
        rows = [iou(guessed, objects).max(axis=1) for guessed, objects in zip(boxes, self.boxes, strict=True)]
        return np.array(rows).reshape(boxes.shape[:2])


def guess_errors(truth: Truth, labels: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(localisation, classification) errors, bool [M] each, of the guesses `labels` [M x K] with `boxes` [M x K x 4]."""
    has_label = labels == truth.label[:, None]
    is_right = has_label & (truth.best_overlaps(boxes) > THRESHOLD)
    return ~is_right.any(axis=1), ~has_label.any(axis=1)


def best_guesses(scores: np.ndarray, boxes: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The `number` classes with the highest `scores` [M x C], and a box of each: labels [M x K], boxes [M x K x 4].

    `boxes` is [M x C x 4], or [M x 1 x 4] where all classes share one. Of equal scores the first class comes first.
    """
    labels = np.argsort(-scores, axis=1, kind="stable")[:, :number]
    rows = np.arange(len(scores))[:, None]
    return labels, boxes[rows, np.minimum(labels, boxes.shape[1] - 1)]


def image_figures(truth: Truth, scores: np.ndarray, boxes: np.ndarray, mean_boxes: np.ndarray) -> np.ndarray:
    """FIGURES of each image, float64 [M x F]. `scores` and `boxes` as in `best_guesses`; `mean_boxes` [M x 4] in pixels."""
    columns: dict[str, np.ndarray] = {}
    for name, number in ("top1", 1), ("top5", GUESSES):
        wrong, wrong_class = guess_errors(truth, *best_guesses(scores, boxes, number))
        columns |= {f"{name}_error": wrong, f"{name}_class_error": wrong_class}
    given = boxes[np.arange(len(boxes)), np.minimum(truth.label, boxes.shape[1] - 1)]
    for name, judged in ("", given), ("mean_", mean_boxes):
        overlaps = truth.best_overlaps(judged[:, None])[:, 0]
        columns |= {f"{name}box_error": overlaps <= THRESHOLD, "mean_box_iou" if name else "mean_iou": overlaps}
    return np.stack([columns[name] for name in FIGURES], axis=1).astype(np.float64)


def resampled_means(values: np.ndarray, groups: np.ndarray, num_resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Means of resampled images, [R x G x F]: each resample draws M images with replacement.

    `values` [M x F], `groups` bool [M x G]: a mean is over the images of its group; NaN where none was drawn.
    Raises PipelineError without images.
    """
    num_images = len(values)
    if num_images == 0:
        raise PipelineError("bootstrap of a split without images; evaluate on a split that has some")
    counts = generator.multinomial(num_images, np.full(num_images, 1 / num_images), size=num_resamples)
    samples = np.full((num_resamples, groups.shape[1], values.shape[1]), np.nan)
    for number, of_group in enumerate(groups.T):
        sums, drawn = counts[:, of_group] @ values[of_group], counts[:, of_group].sum(axis=1)
        samples[drawn > 0, number] = sums[drawn > 0] / drawn[drawn > 0, None]
    return samples
