"""How well the localiser does on a split: errors of all images, of those with one object, and by class, with intervals."""

from collections.abc import Sequence

import numpy as np

from pipeline.datasets.records import ImageRecord
from pipeline.evaluation.bootstrap import interval
from pipeline.evaluation.localisation_error import FIGURES, Truth, image_figures, resampled_means
from pipeline.evaluation.voc_ap import json_number
from pipeline.localisation.localise import Predictions
from pipeline.localisation.windows import from_fractions, largest_object, usable_objects, whole_window
from pipeline.tables import Cell, format_table, in_percent, interval_text

ALL, ONE_OBJECT = "all images", "one object"
# Figures of the table, with their headers.
COLUMNS = {
    "top1_error": "top-1 error", "top5_error": "top-5", "top1_class_error": "class error", "box_error": "box error",
    "mean_box_error": "mean box", "mean_iou": "IoU",
}
NOTE = """An error: the class is wrong, or IoU with every object of the class is <= 0.5; in percent of the images. The class of an
image is that of its largest object. Box error and IoU are of the box for the true class; mean box: the box error of the mean box
of the training images."""


def evaluated_images(images: Sequence[ImageRecord]) -> np.ndarray:
    """The indices [M] of the images that have an object."""
    return np.array([number for number, record in enumerate(images) if largest_object(record) is not None], np.int64)


def truth_of(images: Sequence[ImageRecord]) -> Truth:
    """The label of each image's largest object, and the boxes of all objects of this label. Each image has an object."""
    labels, boxes = [], []
    for record in images:
        label = record.labels[largest_object(record)]
        usable = usable_objects(record)
        labels.append(label)
        boxes.append(record.boxes[usable[record.labels[usable] == label]])
    return Truth(np.array(labels, np.int64), boxes)


def evaluate(
    predictions: Predictions, images: Sequence[ImageRecord], classes: Sequence[str], mean_box: np.ndarray, *, resamples: int,
    generator: np.random.Generator,
) -> dict:
    """Figures of `predictions` for the `images` of a split, as JSON: of all images, of those with one object, of each class.

    `mean_box` [4] is that of the training images, as fractions. Raises PipelineError if no image has an object.
    """
    numbers = evaluated_images(images)
    chosen = [images[number] for number in numbers]
    truth = truth_of(chosen)
    mean_boxes = np.array([from_fractions(mean_box, whole_window(record)) for record in chosen]).reshape(-1, 4)
    values = image_figures(truth, predictions.scores[numbers], predictions.boxes[numbers], mean_boxes)
    one_object = np.array([len(usable_objects(record)) == 1 for record in chosen], bool)
    groups = [np.ones(len(chosen), bool), one_object, *(truth.label == label for label in range(len(classes)))]
    bounds = interval(resampled_means(values, np.stack(groups, axis=1), resamples, generator))
    every, single, *by_class = (_figures(values[of_group], bounds[:, number]) for number, of_group in enumerate(groups))
    return {
        "images_without_object": len(images) - len(numbers), **every, "one_object": single,
        "classes": dict(zip(classes, by_class, strict=True)),
    }


def _figures(values: np.ndarray, bounds: np.ndarray) -> dict:
    """The means of `values` [M x F] by name, with their intervals of `bounds` [2 x F]; None without images."""
    means = values.mean(axis=0) if len(values) else np.full(len(FIGURES), np.nan)
    intervals = {name: [json_number(low), json_number(high)] for name, low, high in zip(FIGURES, *bounds.tolist(), strict=True)}
    return {"images": len(values), **dict(zip(FIGURES, map(json_number, means.tolist()), strict=True)), "interval_95": intervals}


def localisation_table(evaluation: dict) -> str:
    """The figures of `evaluate` as a table."""
    rows = [_row(name, figures) for name, figures in evaluation["classes"].items()]
    rows += [_row(ONE_OBJECT, evaluation["one_object"]), _row(ALL, evaluation)]
    headers = ["class", "images", *COLUMNS.values(), "95 % of top-1 error"]
    return f"{format_table(headers, rows, footer=2)}\n\n{NOTE}\n{left_out(evaluation)}"


def left_out(evaluation: dict) -> str:
    number = evaluation["images_without_object"]
    return f"{number} images have no object and are left out.\n" if number else ""


def variants_table(evaluations: dict[tuple[str, str], dict]) -> str:
    """The figures of several networks, each by its box head and what that reads."""
    rows = [[box_head, after, *_row("", evaluation)[1:]] for (box_head, after), evaluation in evaluations.items()]
    return format_table(["box head", "after", "images", *COLUMNS.values(), "95 % of top-1 error"], rows)


def _row(name: str, figures: dict) -> list[Cell]:
    cells = [in_percent(figures[figure]) for figure in COLUMNS]
    return [name, figures["images"], *cells, interval_text(figures["interval_95"]["top1_error"])]
