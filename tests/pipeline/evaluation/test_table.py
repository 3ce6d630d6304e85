"""The table of AP by class."""

import numpy as np

from pipeline.detection.detections import Detections
from pipeline.evaluation.table import ap_table
from pipeline.evaluation.voc_ap import evaluate


def test_ap_by_class(make_image):
    box = [[0, 0, 10, 10]]
    images = [make_image("a", box, [0]), make_image("b", box, [0])]
    detections = Detections(("a", "b"), ("aeroplane", "dog"), [0], [0], [0.5], box)
    result = evaluate(detections, images, ("aeroplane", "dog"))
    assert ap_table(result).splitlines() == [
        "class      objects  detections  AP 11-point  AP area",
        "----------------------------------------------------",
        "aeroplane        2           1         54.5     50.0",
        "dog              0           0            -        -",
        "----------------------------------------------------",
        "mean             2           1         54.5     50.0",
    ]
    ends = np.array([[0, np.nan, 0.1], [1, np.nan, 0.654]])
    lines = ap_table(result, ends, "07").splitlines()
    assert lines[0].endswith("  AP area  95 % of AP 11-point")
    assert lines[2].endswith("     50.0          0.0 - 100.0")
    assert lines[3].endswith("        -                    -")
    assert lines[5].endswith("     50.0          10.0 - 65.4")
    assert len({len(line) for line in lines}) == 1
