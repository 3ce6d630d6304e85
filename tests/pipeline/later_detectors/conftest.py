"""Reference outputs of the later detectors."""

import numpy as np
import pytest


@pytest.fixture
def later_oracle(shared):
    """A function that loads one file of reference outputs."""

    def load(name: str) -> dict:
        path = shared / "oracles2" / name
        if not path.is_file():
            pytest.skip(f"oracle absent: {name}")
        with np.load(path, allow_pickle=False) as data:
            return dict(data)

    return load
