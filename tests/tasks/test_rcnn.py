"""The stages of the linear models."""

import pytest

from pipeline.rcnn import svm
from tasks import TrainSVMs
from tasks import rcnn as stages


@pytest.fixture
def task(monkeypatch, tmp_path):
    """task(solver) is a `TrainSVMs` that reads no other stage."""
    monkeypatch.setattr(TrainSVMs, "requires", lambda self: {})
    return lambda **settings: TrainSVMs(cache_dir=str(tmp_path), **settings)


def test_our_solver_is_in_no_key(task):
    usual, liblinear = task(), task(svm_solver="liblinear")
    assert task(svm_solver="warm-start").key == usual.key != liblinear.key
    assert usual.key_inputs()["outside"] == {}
    assert liblinear.key_inputs() == {**usual.key_inputs(), "outside": {"svm_solver": "liblinear"}}
    assert "svm_solver" not in usual.key_inputs()["parameters"]


@pytest.mark.parametrize("solver", ["warm-start", "liblinear"])
def test_the_solver_is_handed_on(task, solver, monkeypatch):
    class Reached(Exception):
        pass

    def train(store, scale, generator, settings, progress):
        raise Reached(settings.solver)

    monkeypatch.setattr(svm, "train_svms", train)
    monkeypatch.setattr(stages, "open_features", lambda artefact: None)
    monkeypatch.setattr(stages, "scale_of", lambda store, seed: 1.0)
    monkeypatch.setattr(TrainSVMs, "inputs", lambda self: {"features": None})
    with pytest.raises(Reached, match=solver):
        task(svm_solver=solver).build(None)
