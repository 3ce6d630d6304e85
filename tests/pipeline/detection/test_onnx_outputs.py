"""What all ONNX files do after the network: order, limits, and the way back to the photograph. Without an export."""

import torch
from torch import nn

from pipeline.detection.onnx_export import BestFirst

FACTORS = torch.tensor([2.0, 4.0])


class Found(nn.Module):
    """Five detections, of the labels 1, 2, 1, 0 and 1; the further value of each is its row."""

    def forward(self, image, factors):
        boxes = torch.arange(20.0).reshape(5, 4)
        return boxes, torch.tensor([0.2, 0.5, 0.9, 1.0, 0.2]), torch.tensor([1, 2, 1, 0, 1]), torch.arange(5)


def rows(max_per_class, max_detections):
    return BestFirst(Found(), max_per_class, max_detections)(torch.zeros(3, 1, 1), FACTORS)[3].tolist()


def test_the_best_come_first_in_the_photograph():
    boxes, scores, labels, _ = BestFirst(Found(), 0, 0)(torch.zeros(3, 1, 1), FACTORS)
    assert boxes[0].tolist() == [8 / 2, 9 / 4, 10 / 2, 11 / 4]
    assert scores.tolist() == torch.tensor([0.9, 0.5, 0.2, 0.2]).tolist()
    assert labels.tolist() == [1, 2, 1, 1]


def test_limits():
    assert rows(0, 0)[:2] == [2, 1]
    assert rows(1, 0) == [2, 1]
    assert rows(0, 1) == [2]
    assert rows(2, 0)[:2] == [2, 1]
    assert len(rows(2, 0)) == 3
