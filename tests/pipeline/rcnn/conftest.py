import importlib
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def stores(monkeypatch):
    """The module of feature stores in memory."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("memory_store")
