"""What limits leave out of results: the figures of the stages, and their warnings."""

import logging
from collections.abc import Iterable, Sequence

logger = logging.getLogger("stages")

# What each limit leaves out, and the value that stands for no limit, if there is one.
LIMITS = {
    "max_proposals": ("proposals, those of the lowest priority", None),
    "max_per_image": ("candidates, those with the lowest scores, before suppression", 0),
    "mean_per_image": ("detections, those with the lowest scores", 0),
    "max_detections": ("detections, those with the lowest scores", 0),
}


def candidate_figures(candidates: Sequence) -> dict:
    """The figures of a shard of detections."""
    detections = sum(int(image.survives.sum()) for image in candidates)
    return {"images": len(candidates), "detections": detections, **left_out_figures(candidates)}


def left_out_figures(images: Iterable) -> dict:
    """The sums of what was left out of several images: `left_out_proposals` and so on, those above 0."""
    from pipeline.detection.detections import LeftOut

    sums = map(sum, zip(LeftOut(), *(image.left_out for image in images), strict=True))
    return {f"left_out_{kind}": count for kind, count in zip(LeftOut._fields, sums, strict=True) if count}


def warn_of_limits(label: str, limits: dict[str, tuple[int, int]], advice: str = "") -> None:
    """Warns of each of `limits`, by the name of its setting: its value and how many it left out, if any."""
    for name, (value, count) in limits.items():
        if count:
            what, none = LIMITS[name]
            raised = f"raise it to keep more{'' if none is None else f', {none} keeps all'}"
            option = f"--{name.replace('_', '-')}"
            logger.warning("%s: %s %d leaves out %d %s; %s%s", label, option, value, count, what, raised, advice)


def note_limit_of_split(label: str, mean_per_image: int) -> None:
    """Says that a detector for single images does not apply the limit over a split."""
    if mean_per_image:
        logger.warning("%s: --mean-per-image %d limits a whole split; in single images it is not applied", label, mean_per_image)
