"""Costs, on an image whose windows are counted by hand, and OverFeat's own figure."""

import numpy as np
import pytest

from pipeline.sliding_window.costs import Costs, cost_table, count_costs
from pipeline.sliding_window.layout import WindowLayout

LAYOUT = WindowLayout(20, 4)


def test_by_hand(make_record):
    """At the scale 1 the image is 20 x 30 pixels, framed 30 x 40: 4 x 6 windows, of which 6 x 6 are taken, on 40 x 40 pixels."""
    costs = count_costs([make_record("a", height=40, width=60)], LAYOUT, (1.0,))
    assert costs.windows.tolist() == [[36]]
    assert costs.naive_pixels.tolist() == [[36 * 400]]
    assert costs.dense_pixels.tolist() == [[1600]]
    assert costs.ratio == 9


def test_ratio_is_that_of_the_sums(make_record):
    images = [make_record("a", height=40, width=60), make_record("b", height=200, width=210)]
    costs = count_costs(images, LAYOUT, (1.0, 4.0))
    assert costs.ratio == costs.naive_pixels.sum() / costs.dense_pixels.sum()
    low, high = costs.ratio_interval(200, np.random.default_rng(0))
    assert low <= costs.ratio <= high


def test_overfeat():
    """Table 5 of Sermanet et al. 2014: 80 times as many pixels through the conv layers without sharing."""
    sizes = np.array([[245, 245], [281, 317], [317, 389], [389, 461], [425, 497], [461, 569]])
    windows = np.array([3 * 3, 6 * 9, 9 * 15, 15 * 21, 18 * 21, 21 * 30])
    costs = Costs(tuple(range(6)), windows[None], windows[None] * 221**2, sizes.prod(axis=1)[None])
    assert costs.windows.sum() == 1521
    assert costs.ratio == pytest.approx(80, abs=1)


def test_table(make_record):
    lines = cost_table(count_costs([make_record("a", height=40, width=60)], LAYOUT, (1.0,)).to_json()).splitlines()
    assert lines[2].split() == ["1", "36", "0.01", "0.00", "9.00"]
    assert lines[-1].split() == ["all", "36", "0.01", "0.00", "9.00"]
