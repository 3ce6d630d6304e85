"""Benchmarks are not run by the tests, but what they import must be there."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = sorted(path.stem for path in (Path(__file__).parents[1] / "benchmarks").glob("[!_]*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_can_be_imported(name):
    assert importlib.import_module(f"benchmarks.{name}").main
