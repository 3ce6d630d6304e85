"""From torchvision's detections to ours, and masks of detections."""

import numpy as np
import pytest
import torch

from pipeline.detection.candidates import Limits
from pipeline.detection.detections import LeftOut
from pipeline.detection.masks import kept_rows, pasted
from pipeline.later_detectors.detect import LaterDetection, limited
from pipeline.later_detectors.network import Design, LaterDetector

FOUND = {
    "labels": torch.tensor([2, 1, 2, 0, 1]), "scores": torch.tensor([0.3, 0.9, 0.8, 0.99, 0.2]),
    "boxes": torch.arange(20.0).reshape(5, 4),
    "masks": torch.linspace(0, 1, 5)[:, None, None, None].expand(5, 1, 28, 28),
}


class TestLimits:
    def test_order_and_the_unused_class(self):
        candidates = limited(FOUND, Limits(0, 0.3, 0))
        assert candidates.class_index.tolist() == [0, 0, 1, 1]
        np.testing.assert_allclose(candidates.score, [0.9, 0.2, 0.8, 0.3])
        assert candidates.boxes[:, 0].tolist() == [4, 16, 8, 0]
        assert candidates.masks[:, 0, 0].tolist() == [64, 255, 128, 0]
        assert candidates.survives.all()

    def test_of_a_class_and_of_an_image(self):
        candidates = limited(FOUND, Limits(1, 0.3, 0))
        assert candidates.class_index.tolist() == [0, 1]
        assert candidates.left_out == LeftOut(0, 2, 0)
        candidates = limited(FOUND, Limits(0, 0.3, 3))
        assert candidates.survives.tolist() == [True, False, True, True]
        assert candidates.left_out == LeftOut(0, 0, 1)
        assert candidates.without_suppressed().masks[:, 0, 0].tolist() == [64, 128, 0]

    def test_nothing_found(self):
        nothing = {name: values[:0] for name, values in FOUND.items()}
        candidates = limited(nothing, Limits(1, 0.3, 1))
        assert candidates.boxes.shape == (0, 4)
        assert candidates.masks.shape == (0, 28, 28)

    def test_rows_that_a_limit_over_the_split_leaves(self):
        candidates = limited(FOUND, Limits(0, 0.3, 0))
        assert kept_rows(candidates, np.array([0, 1, 1])).tolist() == [0, 2, 3]
        assert kept_rows(candidates, np.zeros(0, int)).tolist() == []


class TestDetection:
    @pytest.mark.parametrize("chain", ["ssd", pytest.param("mask-rcnn", marks=pytest.mark.exhaustive)])
    def test_boxes_are_in_the_image(self, chain):
        torch.manual_seed(0)
        detector = LaterDetector(Design(chain, "tiny", 300 if chain == "ssd" else 96, 16, 8), 4)
        detection = LaterDetection(detector, torch.device("cpu"), "float32", Limits(0, 0.3, 50), 0.01)
        pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
        candidates = detection.detect(pixels)
        assert detection.num_classes == 3
        assert 0 < candidates.survives.sum() <= 50
        assert set(candidates.class_index) <= {0, 1, 2}
        assert (candidates.boxes >= 0).all()
        assert (candidates.boxes <= (90, 60, 90, 60)).all()
        again = detection.detect(pixels)
        np.testing.assert_array_equal(candidates.boxes, again.boxes)
        assert (candidates.masks is not None) is (chain == "mask-rcnn")


def test_a_very_narrow_image():
    torch.manual_seed(0)
    detector = LaterDetector(Design("retinanet", "tiny", 32, 16), 4)
    detection = LaterDetection(detector, torch.device("cpu"), "float32", Limits(0, 0.3, 50), 0.0)
    boxes = detection.detect(np.zeros((1, 300, 3), np.uint8)).boxes
    assert len(boxes)
    assert (boxes <= (300, 1, 300, 1)).all()


class TestPasting:
    def test_full_and_empty_masks(self):
        masks = np.stack([np.full((28, 28), 255, np.uint8), np.zeros((28, 28), np.uint8)])
        boxes = np.array([[4, 2, 18, 16], [0, 0, 5, 5]], np.float32)
        full, empty = pasted(masks, boxes, 20, 30)
        assert full.shape == (20, 30)
        assert not empty.any()
        assert full[3:15, 5:17].all()
        assert full.sum() == pytest.approx(14 * 14, rel=0.2)

    def test_half_of_a_box(self):
        mask = np.zeros((1, 28, 28), np.uint8)
        mask[0, :, :14] = 255
        (pasted_mask,) = pasted(mask, np.array([[0, 0, 28, 28]], np.float32), 28, 28)
        assert pasted_mask[:, 2:13].all(axis=0)[:11].all()
        assert not pasted_mask[:, 16:].any()

    def test_none(self):
        assert list(pasted(np.zeros((0, 28, 28), np.uint8), np.zeros((0, 4), np.float32), 5, 5)) == []
