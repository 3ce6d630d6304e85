"""Benchmarks are not run by the tests, but what they import must be there."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = sorted(path.stem for path in (Path(__file__).parents[1] / "benchmarks").glob("[!_]*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_can_be_imported(name):
    assert importlib.import_module(f"benchmarks.{name}").main


def test_the_plan_of_a_large_run_grows_by_the_difference_of_two_small_ones():
    """A region takes 2 ms and 3000 bytes, a step takes 0.5 s; to begin takes 1 s, which each shard pays."""
    from benchmarks.voc_plan import Usage, plan

    features, training = ("ExtractFeatures", "split train, layer fc7"), ("FineTune", "")
    small = {features: Usage(1.2, 3e5 + 100, 100), training: Usage(1.5, 7, 1), ("Evaluate", ""): Usage(5, 5, 1)}
    large = {features: Usage(1.6, 9e5 + 100, 300), training: Usage(2.5, 7, 3), ("Evaluate", ""): Usage(5, 5, 1)}
    of_regions, of_steps = plan(small, large, {training: 7200, features: 0}, "alexnet")
    assert (of_regions.unit, of_regions.units, of_regions.artefacts) == ("region", 5011 * 1784, 101)
    assert (of_regions.seconds, of_regions.start, of_regions.bytes) == pytest.approx((0.002, 1, 3000))
    assert of_regions.bytes_before == 2 * 4096
    assert of_regions.hours == pytest.approx((0.002 * 5011 * 1784 + 101) / 3600)
    assert (of_steps.unit, of_steps.bytes) == ("step", 0)
    assert of_steps.hours == pytest.approx((0.5 * 7200 + 1) / 3600)
