"""A fixture of trainings."""


import pytest

from pipeline.networks import training


@pytest.fixture
def saves_every_step(monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
