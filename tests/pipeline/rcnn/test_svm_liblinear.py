"""Our solver against liblinear: each is the other's check.

The tolerances follow from the problem. Let x' = (scale x, B) and v = (w, b / B).

1. The primal P grows from its optimum v* at least as 0.5 |v - v*|^2, and each dual point a has D(a) <= P(v*). So a solution is at
   most sqrt(2 (P(v) - D(a))) from the optimum, and two solutions differ at most by the sum of these two distances.
2. Their decisions on x differ at most by |x'| times that.
3. An example adds at most its cost U times its projected slope to the gap P - D. Both solvers stop when the projected slopes are
   within the tolerance. So the gap is at most the tolerance times the sum of U. (That w still moves within the last pass adds
   little: the largest gap here is 6 % of this bound.)
"""

import dataclasses

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipeline.errors import PipelineError
from pipeline.rcnn import svm_liblinear
from pipeline.rcnn.svm import decisions, train_svms
from pipeline.rcnn.svm_liblinear import solve_by_liblinear
from pipeline.rcnn.svm_settings import LIBLINEAR, SOLVERS, SvmSettings
from pipeline.rcnn.svm_solver import solve


def dense(rng):
    """Overlapping classes, values of both signs."""
    is_positive = rng.random(300) < 0.2
    return rng.normal(size=(300, 40)) + 0.4 * is_positive[:, None], is_positive


def behind_a_relu(rng):
    """Half of the values are 0, in float16, with more features than examples."""
    is_positive = rng.random(120) < 0.3
    rows = np.maximum(rng.normal(size=(120, 700)) + 0.2 * is_positive[:, None], 0)
    return rows.astype(np.float16), is_positive


def sparse(rng):
    """One value in twenty is not 0, and some rows are nothing but 0."""
    is_positive = rng.random(400) < 0.1
    rows = (rng.normal(size=(400, 200)) + 0.5 * is_positive[:, None]) * (rng.random((400, 200)) < 0.05)
    rows[::50] = 0
    return rows.astype(np.float32), is_positive


def digits(rng):
    """Scans of handwritten digits: threes and all others."""
    images, labels = load_digits(return_X_y=True)
    return images[:900].astype(np.float16), labels[:900] == 3


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7])
@pytest.mark.parametrize("cost", [1e-3, 0.1])
@pytest.mark.parametrize("data", [dense, behind_a_relu, sparse, digits])
def test_one_problem(data, cost, tolerance, rng):
    rows, is_positive = data(rng)
    scale, settings = 0.7, SvmSettings(cost=cost, tolerance=tolerance, max_iterations=10**6)
    chosen = rng.permutation(len(rows))[:-10]
    is_positive = is_positive[chosen]
    bounds = cost * np.where(is_positive, settings.positive_weight, 1.0)
    ours = solve(
        rows, chosen, is_positive, np.zeros(len(chosen)), scale=scale, cost=cost, positive_weight=settings.positive_weight,
        bias_multiplier=settings.bias_multiplier, tolerance=tolerance, max_passes=settings.max_iterations, seed=0,
    )
    theirs = solve_by_liblinear(rows=rows, chosen=chosen, is_positive=is_positive, scale=scale, settings=settings, seed=0)
    assert ours.converged
    assert theirs.converged

    examples = np.c_[rows[chosen].astype(np.float64) * scale, np.full(len(chosen), settings.bias_multiplier)]
    signs = np.where(is_positive, 1, -1)
    ends = [np.append(solution.w, solution.b / settings.bias_multiplier) for solution in (ours, theirs)]
    primals = np.array([0.5 * v @ v + bounds @ np.maximum(0, 1 - signs * (examples @ v)) for v in ends])
    of_alphas = (signs * ours.alphas) @ examples
    gaps = primals - (ours.alphas.sum() - 0.5 * of_alphas @ of_alphas)
    assert (gaps > -1e-9 * primals).all()
    # 3.
    assert (gaps < tolerance * bounds.sum()).all()
    # 1.
    apart = np.sqrt(2 * np.maximum(gaps, 0)).sum() + 1e-9
    assert np.linalg.norm(ends[0] - ends[1]) <= apart
    # 2.
    scores = [decisions(rows, chosen, solution.w, solution.b, scale) for solution in (ours, theirs)]
    assert (np.abs(scores[0] - scores[1]) <= apart * np.linalg.norm(examples, axis=1)).all()
    clear = np.abs(scores[0]) > apart * np.linalg.norm(examples, axis=1)
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(scores[0][clear] > 0, scores[1][clear] > 0)


def digits_store(stores, rng):
    """Images of 60 scans: zeros, ones and twos are objects, the others proposals far from them."""
    scans, labels = load_digits(return_X_y=True)
    images = []
    for first in range(0, 600, 60):
        names = labels[first : first + 60]
        images.append({
            "features": scans[first : first + 60].astype(np.float16), "boxes": np.zeros((60, 4), np.float32),
            "overlaps": np.float32(names[:, None] == np.arange(3)), "gt_labels": np.where(names < 3, names, -1),
            "difficult": np.zeros(60, bool),
        })
    return stores.MemoryStore(["zero", "one", "two"], images, 64)


STORES = {
    "float32": lambda stores, rng: stores.random_store(rng, images=10),
    "wide float16": lambda stores, rng: stores.random_store(rng, images=10, num_features=300, dtype=np.float16),
    "digits": digits_store,
}


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("tolerance", [1e-6, 1e-8])
def test_the_whole_procedure(stores, name, tolerance, rng):
    store = STORES[name](stores, rng)
    settings = SvmSettings(cost=0.01, retrain_limit=15, tolerance=tolerance)
    ours, theirs = (
        train_svms(store, 1.5, np.random.default_rng(0), dataclasses.replace(settings, solver=solver)) for solver in SOLVERS
    )
    assert len(ours.events) > 2 * 3  # some class was trained again between the first image and the last
    assert ours.events["evicted"].sum() > 0
    # Both mined the same negatives and kept the same: no decision is so near -1 or -1.2 that the difference matters.
    for column in set(ours.events.dtype.names) - {"iterations", "objective"}:
        np.testing.assert_array_equal(ours.events[column], theirs.events[column])
    np.testing.assert_array_equal(ours.hard_negatives, theirs.hard_negatives)
    # 3., and float32 for W and B
    numbers = ours.events["positives"] * settings.positive_weight + ours.events["negatives"]
    gaps = tolerance * settings.cost * numbers + 1e-6 * ours.events["objective"]
    assert (np.abs(ours.events["objective"] - theirs.events["objective"]) <= gaps).all()
    # 1.
    last = [gaps[ours.events["class"] == label][-1] for label in range(3)]
    apart = np.linalg.norm(np.vstack([ours.W - theirs.W, (ours.B - theirs.B) / settings.bias_multiplier]), axis=0)
    assert (apart <= 2 * np.sqrt(2 * np.array(last))).all()
    assert (ours.W != theirs.W).any()  # two solvers, not one twice


def test_liblinear_starts_from_nothing_and_gives_the_same_each_time(stores, rng):
    store, settings = stores.random_store(rng, images=10), SvmSettings(cost=0.01, retrain_limit=15, solver=LIBLINEAR)
    first, second = (train_svms(store, 1.5, np.random.default_rng(0), settings).to_arrays() for _ in range(2))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_too_few_passes_are_an_error(stores, rng, recwarn):
    settings = SvmSettings(cost=1.0, tolerance=1e-10, max_iterations=3, solver=LIBLINEAR)
    with pytest.raises(PipelineError, match="class class0: not converged after 3 iterations"):
        train_svms(stores.random_store(rng), 3.0, rng, settings)
    assert not recwarn


def test_more_features_than_liblinear_can_count(monkeypatch):
    monkeypatch.setattr(svm_liblinear, "MOST", 5)
    rows = np.array([[1, 2, 3], [0, 4, 5]], np.float16)
    arguments = {"rows": rows, "is_positive": np.array([True, False]), "scale": 1.0, "settings": SvmSettings(), "seed": 0}
    assert solve_by_liblinear(chosen=np.array([0, 1]), **arguments).converged
    with pytest.raises(PipelineError, match="found 6 values that are not 0 in 2 examples, expected at most 5; use the solver"):
        solve_by_liblinear(chosen=np.array([0, 0]), **arguments)


def test_unknown_solver():
    with pytest.raises(PipelineError, match="SVM solver 'newton' is none of warm-start, liblinear"):
        SvmSettings(solver="newton")
