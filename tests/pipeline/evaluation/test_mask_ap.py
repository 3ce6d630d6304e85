"""Average precision of masks: by hand."""

import numpy as np
import pytest

from pipeline.datasets.records import ImageRecord, MaskFile
from pipeline.detection.detections import Detections
from pipeline.errors import PipelineError
from pipeline.evaluation.mask_ap import evaluate_masks, mask_table

CLASSES = ("cat", "dog")
BOXES = np.array([[10, 10, 50, 50], [60, 60, 90, 90]], np.float32)


def image(name: str, masked: bool = True, difficult: bool = False) -> ImageRecord:
    mask = MaskFile(f"{name}.png", "0") if masked else None
    return ImageRecord(
        name, f"{name}.jpg", "0", 100, 100, BOXES, np.array([0, 1]), np.array([False, difficult]), instance_mask=mask
    )


def instances(record: ImageRecord) -> np.ndarray:
    """The first object fills its box, the second the upper two thirds of its own and a row at its foot."""
    mask = np.zeros((100, 100), np.uint8)
    mask[10:50, 10:50], mask[60:80, 60:90], mask[89, 60:90] = 1, 2, 2
    return mask


def detections(ids: tuple[str, ...], labels=(0, 1)) -> Detections:
    number = np.repeat(np.arange(len(ids)), 2)
    return Detections(ids, CLASSES, number, np.tile(labels, len(ids)), np.ones(len(number)), np.tile(BOXES, (len(ids), 1)))


def full(count: int) -> np.ndarray:
    return np.full((count, 28, 28), 255, np.uint8)


def test_masks_count_not_boxes():
    """A full mask on the partly filled object has an IoU of 21 / 30 or less: a hit at low thresholds alone."""
    result = evaluate_masks(detections(("a",)), full(2), [image("a")], CLASSES, instances)
    assert result["classes"]["cat"] >= 0.85
    assert 0.2 <= result["classes"]["dog"] <= 0.5
    assert result["metrics"]["ap_50"] == pytest.approx(1)
    assert (result["images"], result["objects"]) == (1, 2)


def test_a_good_mask():
    masks = full(2)
    masks[1, 19:] = 0
    result = evaluate_masks(detections(("a",)), masks, [image("a")], CLASSES, instances)
    assert result["classes"]["dog"] >= 0.65


def test_images_without_masks_do_not_count():
    images = [image("a"), image("b", masked=False)]
    result = evaluate_masks(detections(("a", "b")), full(4), images, CLASSES, instances)
    assert result == evaluate_masks(detections(("a",)), full(2), images[:1], CLASSES, instances)


def test_difficult_objects_do_not_count():
    result = evaluate_masks(detections(("a",)), full(2), [image("a", difficult=True)], CLASSES, instances)
    assert result["classes"]["dog"] is None
    assert result["objects"] == 1


def test_no_detection():
    empty = Detections(("a",), CLASSES, [], [], [], np.zeros((0, 4)))
    result = evaluate_masks(empty, full(0), [image("a")], CLASSES, instances)
    assert result["metrics"]["ap"] == 0


def test_table():
    result = evaluate_masks(detections(("a",)), full(2), [image("a")], CLASSES, instances)
    assert mask_table(result).splitlines()[0].split()[:3] == ["COCO", "mask", "AP"]
    assert "2 masks" in mask_table(result)


def test_detections_of_other_images():
    with pytest.raises(PipelineError):
        evaluate_masks(detections(("b",)), full(2), [image("a")], CLASSES, instances)
