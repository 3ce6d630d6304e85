"""Fixtures that many tests share."""

from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture
def shared():
    """The folder of reference data beside the checkout: outputs of the original releases, photographs, weights."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data absent: {SHARED.name}/ beside the checkout")
    return SHARED


@pytest.fixture
def oracle(shared):
    """A function that loads one file of outputs of the original releases."""

    def load(name: str) -> dict:
        path = shared / "oracles" / name
        if not path.is_file():
            pytest.skip(f"oracle absent: {name}")
        with np.load(path, allow_pickle=False) as data:
            return dict(data)

    return load
