"""The comparison of a sweep's rows: against the paired bootstrap of two runs, and means over seeds worked by hand."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation.bootstrap import bootstrap, interval, paired_difference
from pipeline.evaluation.row_comparison import RowComparison
from pipeline.evaluation.voc_ap import evaluate


@pytest.fixture
def runs(make_split):
    """Four evaluations on the same images: of the same boxes with other scores."""
    generator = np.random.default_rng(0)
    images, classes, detections = make_split(generator, 8, 2, 6)
    scored = [replace(detections, score=generator.random(len(detections))) for _ in range(4)]
    return [evaluate(rescored, images, classes) for rescored in scored]


def compare(*rows):
    comparison = RowComparison(50, np.random.default_rng(1), "07")
    return [comparison.add(row) for row in rows]


def test_one_seed_is_the_paired_bootstrap_of_two_runs(runs):
    first, second = compare(runs[:1], runs[1:2])
    expected = paired_difference(runs[1].matches, runs[0].matches, 50, np.random.default_rng(1), metric="07")
    np.testing.assert_array_equal(second.difference.low, expected.low)
    np.testing.assert_array_equal(second.difference.high, expected.high)
    np.testing.assert_array_equal(second.difference.share_above, expected.share_above)
    assert second.difference.mean[-1] == runs[1].mean_ap_07 - runs[0].mean_ap_07
    assert first.difference is None
    np.testing.assert_array_equal(first.interval, interval(bootstrap(runs[0].matches, 50, np.random.default_rng(1), "07")))


def test_seeds_are_averaged_on_the_same_draws(runs):
    _, second = compare(runs[:2], runs[2:])
    samples = [bootstrap(run.matches, 50, np.random.default_rng(1), "07") for run in runs]
    differences = (samples[2] - samples[0] + samples[3] - samples[1]) / 2
    np.testing.assert_allclose(second.difference.low, interval(differences)[0], atol=1e-12)
    maps = [run.mean_ap_07 for run in runs]
    assert second.difference.mean[-1] == pytest.approx((maps[2] + maps[3] - maps[0] - maps[1]) / 2)
    assert second.spread == pytest.approx(abs(maps[2] - maps[3]) / np.sqrt(2))
    assert second.to_json()["map"] == pytest.approx((maps[2] + maps[3]) / 2)


def test_a_row_equal_to_the_first_differs_by_nothing(runs):
    _, again = compare(runs[:2], runs[:2])
    assert not np.any([again.difference.mean, again.difference.low, again.difference.high, again.difference.share_above])


def test_other_objects_are_not_compared(runs, make_split):
    images, classes, detections = make_split(np.random.default_rng(5), 8, 2, 6)  # the same ids
    _, second = compare(runs[:1], [evaluate(detections, images, classes)])
    assert second.difference is None
    assert second.to_json()["difference"] is None


def test_a_single_run_has_no_spread(runs):
    (row,) = compare(runs[:1])
    assert row.to_json()["spread"] is None
    assert row.to_json()["maps"] == [runs[0].mean_ap_07]
