"""Which test images show what a localiser does, and its best guess in each beside the object."""

from collections.abc import Sequence

import numpy as np

from pipeline.boxes import iou
from pipeline.datasets.records import ImageRecord
from pipeline.evaluation.localisation_error import THRESHOLD, best_guesses
from pipeline.localisation.evaluation import evaluated_images
from pipeline.localisation.localise import Predictions
from pipeline.localisation.windows import largest_object
from pipeline.report.gallery import FALSE_ALARM, HIT, MISS, Mark


def choose_images(predictions: Predictions, images: Sequence[ImageRecord], number: int) -> list[int]:
    """At most `number` images with an object, evenly spread from the one that the localiser is surest of to the least sure."""
    numbers = evaluated_images(images)
    order = numbers[np.argsort(-predictions.scores[numbers].max(axis=1), kind="stable")]
    places = np.linspace(0, len(order) - 1, min(number, len(order)))
    return order[places.round().astype(int)].tolist()


def marks_of(predictions: Predictions, record: ImageRecord, number: int, classes: Sequence[str]) -> list[Mark]:
    """The best guess in image `number`, a hit or a false alarm; before a false alarm the largest object, which was missed."""
    labels, boxes = best_guesses(predictions.scores[[number]], predictions.boxes[[number]], 1)
    label, box, place = int(labels[0, 0]), boxes[0, 0], largest_object(record)
    true = record.boxes[record.counted & (record.labels == record.labels[place])]
    overlap, is_class = float(iou(box[None], true).max()), label == record.labels[place]
    is_right = is_class and overlap > THRESHOLD
    guess = Mark(HIT if is_right else FALSE_ALARM, tuple(box.tolist()), classes[label],
                 float(predictions.scores[number, label]), overlap)
    missed = Mark(MISS, tuple(record.boxes[place].tolist()), classes[int(record.labels[place])])
    return [guess] if is_right else [missed, guess]
