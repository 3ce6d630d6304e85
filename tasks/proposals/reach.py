"""Warnings about proposals: they reach hardly any object, or an image has too many objects for their number."""

import logging
from collections.abc import Callable, Iterable

logger = logging.getLogger("stages")

SIDE_OF_RPN = 16  # RPN_MIN_SIZE of the proposal network: `ProposalSettings.min_side`
# With fewer proposals an object, crowded objects are lost: several proposals lie on each, others on the background.
NEEDED = 2


def reach_figures(label: str, split, proposals: Iterable, advise: Callable) -> dict:
    """How many objects of `split` its proposals reach. Warns when there is hardly one; `advise(reach, unreached)` says what to
    do.
    """
    from pipeline.proposals.reach import find_unreached, measure_reach

    reach = measure_reach(split.images, proposals)
    if problem := find_unreached(reach, split.classes):
        text, unreached = problem
        logger.warning("%s: split '%s': %s; %s", label, split.name, text, advise(reach, unreached))
    return {"objects": len(reach.reached), "objects_reached": int(reach.reached.sum())}


def network_advice(reach, unreached) -> str:
    """As `search_advice`, for the proposal network."""
    import numpy as np

    from pipeline.proposals.reach import describe_sides

    sides = reach.sides[unreached]
    small = f", and the network leaves out boxes with a side below {SIDE_OF_RPN}" if np.median(sides) < SIDE_OF_RPN else ""
    remedies = "choose --anchor-scales that suit the objects, raise --fast-scale, or train longer (--rpn-iterations, "
    return f"{describe_sides(sides)}{small}: {remedies}--rpn-shared-iterations)"


def warn_of_crowds(label: str, split, limit: int, option: str) -> None:
    """Warns when an image has so many objects that `limit` proposals an image, the setting `option`, cannot cover them."""
    counts = [int(image.counted.sum()) for image in split.images]
    crowded = [count for count in counts if count * NEEDED > limit]
    if crowded:
        logger.warning(
            "%s: %d of %d images have more than %d objects (%d at most), and the network proposes %d regions an image; "
            "raise %s to %d or more", label, len(crowded), len(counts), limit // NEEDED, max(crowded), limit, option,
            NEEDED * 2 * max(crowded),
        )
