"""COCO's average precision of masks: as `coco_ap`, but the overlap is that of pixels (Lin et al. 2014), by pycocotools.

NOTE: an object that its image has no mask for is left out like a crowd. Void pixels count as background.

Shape shorthand: K detections, m x m cells of a mask.
"""

import contextlib
import io
import math
from collections.abc import Callable, Sequence

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.datasets.instances import object_masks
from pipeline.datasets.records import ImageRecord
from pipeline.detection.detections import Detections
from pipeline.detection.masks import of_image, pasted
from pipeline.evaluation.voc_ap import check_split, json_number
from pipeline.tables import format_table

METRICS = {"ap": "mask AP", "ap_50": "AP50", "ap_75": "AP75", "ap_small": "small", "ap_medium": "medium", "ap_large": "large"}
UNDEFINED = -1


def evaluate_masks(
    detections: Detections, masks: np.ndarray, images: Sequence[ImageRecord], classes: Sequence[str],
    read: Callable[[ImageRecord], np.ndarray],
) -> dict:
    """`METRICS` of the detections' `masks` (uint8 [K x m x m]), AP by class, and how many images and objects have masks.

    Only images with a mask of instances count; `read` gives it. Raises PipelineError for detections of other images or classes.
    """
    check_split(detections, images, classes)
    numbers = [number for number, image in enumerate(images) if image.instance_mask]
    sizes = {number: (images[number].height, images[number].width) for number in numbers}
    truth, results = [], []
    for number in numbers:
        truth += _objects(number, images[number], read(images[number]))
        results += _results(number, detections, masks, images[number])
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and its results
        evaluation = COCOeval(_coco(sizes, classes, truth), _coco(sizes, classes, results), iouType="segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    by_class = evaluation.eval["precision"][:, :, :, 0, -1].mean(axis=(0, 1))
    values = dict(zip(METRICS, evaluation.stats)), dict(zip(classes, by_class))
    metrics, of_classes = ({name: _number(value) for name, value in part.items()} for part in values)
    objects = sum(not annotation["iscrowd"] for annotation in truth)
    return {"metrics": metrics, "classes": of_classes, "images": len(numbers), "objects": objects}


def mask_table(result: dict) -> str:
    """The metrics in percent, one line."""
    values = (result["metrics"][name] for name in METRICS)
    row = [f"{result['objects']} masks", *(None if value is None else 100 * value for value in values)]
    return format_table(["COCO", *METRICS.values()], [row])


def _objects(number: int, image: ImageRecord, instances: np.ndarray) -> list[dict]:
    masks = object_masks(instances, image.boxes)
    left_out = ~image.counted | ~masks.any(axis=(1, 2))
    annotations = []
    for mask, label, box, is_crowd in zip(masks, image.labels, image.boxes, left_out, strict=True):
        if not mask.any():
            x1, y1, x2, y2 = np.rint(box).astype(int)
            mask[y1:y2, x1:x2] = True
        annotations.append({**_annotation(number, label, mask), "iscrowd": int(is_crowd)})
    return annotations


def _results(number: int, detections: Detections, masks: np.ndarray, image: ImageRecord) -> list[dict]:
    rows = of_image(detections, number)
    inside = pasted(masks[rows], detections.boxes[rows], image.height, image.width)
    labels, scores = detections.class_index[rows], detections.score[rows]
    return [
        {**_annotation(number, label, mask), "score": float(score)}
        for mask, label, score in zip(inside, labels, scores, strict=True)
    ]


def _annotation(number: int, label: int, mask: np.ndarray) -> dict:
    coded = rle.encode(np.asfortranarray(mask, np.uint8))
    box = rle.toBbox(coded).tolist()
    return {
        "image_id": number, "category_id": int(label), "segmentation": coded, "area": float(rle.area(coded)), "bbox": box,
        "iscrowd": 0,
    }


def _coco(sizes: dict[int, tuple[int, int]], classes: Sequence[str], annotations: list[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number, "height": height, "width": width} for number, (height, width) in sizes.items()],
        # pycocotools takes 0 for no match.
        "annotations": [{"id": id, **annotation} for id, annotation in enumerate(annotations, 1)],
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes)],
    }
    coco.createIndex()
    return coco


def _number(value: float) -> float | None:
    return json_number(math.nan if value == UNDEFINED else float(value))
