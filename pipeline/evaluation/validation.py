"""How good a detector is on a split, as one number: to choose the best network of a training."""

from collections.abc import Callable, Iterable

from pipeline.datasets.records import Split
from pipeline.detection.candidates import Candidates, select_detections
from pipeline.evaluation.voc_ap import evaluate


def mean_ap(detect: Callable[..., Candidates], arguments: Iterable[tuple], split: Split) -> float:
    """VOC's mean average precision, the area under the curve, of what `detect(*arguments)` finds in each image of `split`.

    The area, not the mean at eleven recalls, which small splits change in jumps.
    """
    candidates = [detect(*of_image).without_suppressed() for of_image in arguments]
    detections = select_detections(candidates, [image.id for image in split.images], split.classes)
    return evaluate(detections, split.images, split.classes).mean_ap_area
