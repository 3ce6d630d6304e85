"""Average precision of masks, where a detector predicts them and the test images have them."""

import logging

from pipeline.later_detectors.names import has_masks
from tasks.data.instances import masks_from
from tasks.file_checks import read_arrays
from tasks.later_detectors.base import MASKS

logger = logging.getLogger("stages")


def masks_of(stage, split, detections) -> dict | None:
    """The figures of the masks that the evaluation `stage` judges; None where there are none to judge."""
    if not has_masks(stage.chain):
        return None
    images, read = masks_from(stage, "test", split)
    masked = sum(image.instance_mask is not None for image in images)
    if masked < len(images):
        logger.warning("%s: %d of %d test images have no mask of instances; masks are judged on the others",
                       stage.label, len(images) - masked, len(images))
    if not masked:
        return None
    from pipeline.evaluation.mask_ap import evaluate_masks

    masks = read_arrays(stage.inputs()["detections"], MASKS)["masks"]
    return evaluate_masks(detections, masks, images, split.classes, read)


def mask_text(result: dict | None) -> str:
    """What the table says of masks; empty without any."""
    if result is None:
        return ""
    from pipeline.evaluation.mask_ap import mask_table

    return f"\n{mask_table(result)}\n"
