"""Masks of objects over their photograph: those of the truth, and those that a detector found.

A found mask has the colour of the object that its box hits, so that one sees at once which masks belong together.

Shape shorthand: M objects of an image, K detections of a split, m x m cells of a mask.
"""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from pipeline.datasets.records import ImageRecord
from pipeline.detection.drawing import colour_of
from pipeline.detection.masks import of_image, pasted
from pipeline.evaluation.operating_points import counted
from pipeline.evaluation.voc_ap import IGNORED, TRUE_POSITIVE, Matches
from pipeline.report.embedding import png_uri

LONGEST_SIDE = 240  # pixels of a layer of masks on the page
OPACITY = 180  # of 255
FALSE_ALARM = (255, 255, 255)


def true_layer(masks: np.ndarray, image: ImageRecord) -> str:
    """The layer of the true `masks`, bool [M x height x width]: a picture to be laid over the photograph."""
    return _layer(((mask, colour_of(place)) for place, mask in enumerate(masks)), image)


def found_layer(matches: Matches, masks: np.ndarray, image: ImageRecord, number: int, points: np.ndarray) -> str:
    """The layer of what is found in `image`, the `number`-th: `masks` are those of all detections, uint8 [K x m x m].

    Detections count from the operating points on, and the surest are on top. False alarms are white.
    """
    detections, outcome = matches.detections, matches.outcome
    rows = np.arange(len(detections))[of_image(detections, number)]
    rows = rows[counted(matches, points)[rows] & (outcome[rows] != IGNORED)]
    rows = rows[np.argsort(detections.score[rows], kind="stable")]
    colours = [colour_of(int(matches.object_index[row])) if outcome[row] == TRUE_POSITIVE else FALSE_ALARM for row in rows]
    inside = pasted(masks[rows], detections.boxes[rows], image.height, image.width)
    return _layer(zip(inside, colours, strict=True), image)


def _layer(parts: Iterable[tuple[np.ndarray, tuple[int, ...]]], image: ImageRecord) -> str:
    """Masks in their colours, the last on top, as a PNG that is clear elsewhere; shrunk without mixing colours."""
    layer = np.zeros((image.height, image.width, 4), np.uint8)
    for mask, colour in parts:
        layer[mask] = (*colour, OPACITY)
    picture = Image.fromarray(layer)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.NEAREST)
    return png_uri(np.asarray(picture))
