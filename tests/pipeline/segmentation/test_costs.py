"""Pixels and multiplications of a small network, counted by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.segmentation.costs import Cost, cost_row, cost_table, count_cost, of_every_pixel, with_ratios


def test_pixels_go_through_the_first_convolution_and_all_layers_multiply():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1, stride=2))
    with torch.inference_mode():
        cost = count_cost(model, lambda pixels: [model(torch.zeros(2, 3, *pixels.shape[:2])) for _ in range(3)],
                          np.zeros((8, 6, 3), np.uint8))
    assert cost.pixels == 3 * 2 * 8 * 6
    assert cost.operations == 3 * 2 * (8 * 6 * 4 * 27 + 4 * 3 * 2 * 4)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_windows_around_every_pixel_cost_that_of_one_times_the_pixels():
    cost = of_every_pixel(Cost(6 * 25, 6 * 700), (30, 40), 6)
    assert (cost.pixels, cost.operations) == (1200 * 25, 1200 * 700)


def test_ratios_are_to_fcn32s():
    rows = with_ratios([cost_row("patches", Cost(10**6, 5 * 10**9), 32), cost_row("fcn32s", Cost(10**5, 10**8), 32)])
    assert [row["over_fcn32s"] for row in rows] == [pytest.approx(50), 1]
    lines = cost_table(rows, {"fcn32s": 0.5}).splitlines()
    assert lines[2].split() == ["patches", "32", "1.000", "5.000", "50.0", "not", "run"]
    assert lines[3].split()[-1] == "0.5"
