"""Which objects the proposals reach at all, and why a method may miss the small ones.

No detector finds an object that no proposal overlaps by an IoU of 0.5. Where hardly any object is reached, training is in vain.

Shape shorthand: n objects of one image, N proposals, O objects of a split.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.datasets.records import ImageRecord
from pipeline.matching import match_boxes

IOU = 0.5  # a hit of PASCAL VOC
FEW = 0.05  # share of the objects below which the proposals are told to be useless
LEAST = 5  # objects of a class from which on it is no chance that none is reached
EXAMPLES = 3  # classes that a message names


class Reach(NamedTuple):
    """The objects of a split that count: class `labels` int64 [O], shorter `sides` [O] in pixels, `reached` bool [O].

    `longest_side` and `widest` are the largest of the images in pixels.
    """

    labels: np.ndarray
    sides: np.ndarray
    reached: np.ndarray
    longest_side: int
    widest: int


def measure_reach(images: Sequence[ImageRecord], proposals: Iterable[np.ndarray]) -> Reach:
    """Which objects of `images` the proposals [N x 4] of each image reach. `proposals` are read once, one image at a time."""
    labels, sides, reached = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0, bool)]
    longest = widest = 0
    for image, boxes in zip(images, proposals, strict=True):
        counts = image.counted
        objects = image.boxes[counts]
        labels.append(image.labels[counts])
        sides.append((objects[:, 2:] - objects[:, :2]).min(axis=1, initial=np.inf))
        reached.append(match_boxes(objects, boxes).at_least(IOU))
        longest, widest = max(longest, image.width, image.height), max(widest, image.width)
    return Reach(np.concatenate(labels), np.concatenate(sides), np.concatenate(reached), longest, widest)


def find_unreached(reach: Reach, classes: Sequence[str]) -> tuple[str, np.ndarray] | None:
    """What is to be told of objects that the proposals do not reach, and which they are, bool [O]; None where all is well.

    It is told of when hardly any object is reached, and of classes of at least LEAST objects of which none is.
    """
    total, hits = len(reach.reached), int(reach.reached.sum())
    if total and hits < FEW * total:
        how_many = f"only {hits}" if hits else "none"
        return f"the proposals reach {how_many} of {total} objects (IoU {IOU} or more)", ~reach.reached
    objects = np.bincount(reach.labels, minlength=len(classes))
    missed = np.flatnonzero((objects >= LEAST) & (np.bincount(reach.labels[reach.reached], minlength=len(classes)) == 0))
    if not len(missed):
        return None
    named = [f"'{classes[label]}' ({objects[label]})" for label in missed[:EXAMPLES]]
    more = f" and {len(missed) - EXAMPLES} more" if len(missed) > EXAMPLES else ""
    text = f"the proposals reach no object (IoU {IOU} or more) of {len(missed)} of {len(classes)} classes"
    return f"{text}: {', '.join(named)}{more}", np.isin(reach.labels, missed)


def describe_sides(sides: np.ndarray) -> str:
    """The shorter sides of objects, for a message."""
    return f"the shorter sides of these objects are {sides.min():.0f} to {sides.max():.0f} pixels"


def search_advice(reach: Reach, unreached: np.ndarray, method: str, image_width: int) -> str:
    """Why selective search by `method` may miss the objects `unreached` bool [O], and which settings to change."""
    from pipeline.proposals.ranking import MIN_SIDE
    from pipeline.proposals.selective_search import MODES

    sides, mode = reach.sides[unreached], MODES.get(method)
    shortest, shrunk_to = (mode.min_side, mode.longest_side) if mode else (MIN_SIDE, None)
    faults, remedies = [describe_sides(sides)], []
    if np.median(sides) < shortest:
        faults.append(f"'{method}' leaves out boxes with a side below {shortest}")
        if method != "balanced" and np.median(sides) >= MODES["balanced"].min_side:
            remedies.append(f"give --proposals balanced, which goes down to {MODES['balanced'].min_side}")
        else:
            remedies.append("enlarge the images and their boxes")
    if shrunk_to and not image_width and reach.longest_side > shrunk_to:
        faults.append(f"'{method}' shrinks images to a longest side of {shrunk_to}")
        remedies.append(
            f"give --image-width {reach.widest}, which searches them unshrunk (--proposals fast does so too, for sides of "
            f"{MODES['fast'].min_side} and more)"
        )
    elif image_width and image_width < reach.widest:
        faults.append(f"images are resized to a width of {image_width}")
        remedies.append(f"raise --image-width to {reach.widest}")
    remedies.append("try --proposals quality or a larger --max-proposals")
    return f"{', and '.join(faults)}: {'; or '.join(remedies)}"
