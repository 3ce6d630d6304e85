import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import LinearSVC

from pipeline.rcnn import svm_solver
from pipeline.rcnn.svm_solver import decisions, solve
from tests.tiers import examples

DTYPES = [np.float16, np.float32, np.float64]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Examples `rows` [N x D] times `scale`, and the settings."""

    rows: np.ndarray
    is_positive: np.ndarray
    scale: float = 1.0
    cost: float = 0.01
    positive_weight: float = 2.0
    bias_multiplier: float = 10.0

    @property
    def bounds(self):
        return np.where(self.is_positive, self.cost * self.positive_weight, self.cost)

    def solve(self, tolerance=1e-8, alphas=None, max_passes=100_000, seed=0):
        alphas = np.zeros(len(self.rows)) if alphas is None else alphas
        return solve(
            self.rows, np.arange(len(self.rows)), self.is_positive, alphas, scale=self.scale, cost=self.cost,
            positive_weight=self.positive_weight, bias_multiplier=self.bias_multiplier, tolerance=tolerance,
            max_passes=max_passes, seed=seed,
        )

    def margins(self, w, b):
        """y (w.x + b), in float64."""
        return np.where(self.is_positive, 1, -1) * (self.rows.astype(np.float64) @ w * self.scale + b)

    def objective(self, w, b):
        return 0.5 * w @ w + 0.5 * (b / self.bias_multiplier) ** 2 + self.bounds @ np.maximum(0, 1 - self.margins(w, b))

    def by_liblinear(self):
        solver = LinearSVC(
            loss="hinge", C=self.cost, class_weight={1: self.positive_weight}, intercept_scaling=self.bias_multiplier, tol=1e-10,
            max_iter=10**6, random_state=0,
        ).fit(self.rows.astype(np.float64) * self.scale, np.where(self.is_positive, 1, -1))
        return solver.coef_[0], solver.intercept_[0]


def make_problem(generator, examples=150, size=40, dtype=np.float64, density=1.0, positives=0.2, **settings):
    """Overlapping classes, values of both signs."""
    is_positive = generator.random(examples) < positives
    is_positive[:2] = True, False
    rows = generator.normal(size=(examples, size)) + 0.3 * is_positive[:, None]
    return Problem((rows * (generator.random(rows.shape) < density)).astype(dtype), is_positive, **settings)


def test_equal_slopes_are_no_end():
    # Both slopes are -2 at every visit, until the negative is at its bound, 0.1; then the positive's margin sets its own.
    solution = Problem(np.zeros((2, 1)), np.array([True, False]), cost=0.1).solve()
    np.testing.assert_allclose([*solution.alphas, solution.b], [0.11, 0.1, 1])


class TestByHand:
    """x = 1 and -1, so w.x = w and the bias stays 0: both alphas are equal, w = 2 a, and the margin is 2 a."""

    rows = np.array([[1.0], [-1.0]])

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_free_alphas(self, dtype):
        solution = Problem(self.rows.astype(dtype), np.array([True, False]), cost=5, positive_weight=1, bias_multiplier=1).solve()
        np.testing.assert_allclose(solution.alphas, 0.5, atol=1e-8)
        np.testing.assert_allclose([solution.w[0], solution.b], [1, 0], atol=1e-7)
        assert solution.converged

    def test_alphas_at_their_bounds(self):
        # a = 0.2 and 0.1: w = 0.3; the bias is B^2 (0.2 - 0.1).
        solution = Problem(self.rows, np.array([True, False]), cost=0.1, positive_weight=2, bias_multiplier=0.5).solve()
        np.testing.assert_allclose(solution.alphas, [0.2, 0.1])
        np.testing.assert_allclose([solution.w[0], solution.b], [0.3, 0.025])

    def test_scale(self):
        solution = Problem(self.rows / 4, np.array([True, False]), scale=4, cost=5, positive_weight=1, bias_multiplier=1).solve()
        np.testing.assert_allclose([solution.w[0], solution.b], [1, 0], atol=1e-7)

    def test_rows_are_chosen_by_number(self):
        rows = np.array([[7.0], [-1.0], [8.0], [1.0]])
        solution = solve(
            rows, np.array([3, 1]), np.array([True, False]), np.zeros(2), scale=1, cost=5, positive_weight=1, bias_multiplier=1,
            tolerance=1e-8, max_passes=1000, seed=0,
        )
        np.testing.assert_allclose(solution.w, 1, atol=1e-7)
        np.testing.assert_allclose(decisions(rows, np.array([2, 3]), np.array([2.0]), 1, 0.5), [9, 2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize(("examples", "size"), [(60, 300), (300, 30)])
def test_optimum_is_liblinears(examples, size, density, dtype, rng):
    problem = make_problem(rng, examples, size, dtype, density, scale=0.7)
    solution, (w, b) = problem.solve(), problem.by_liblinear()
    np.testing.assert_allclose(solution.w, w, atol=1e-6)
    np.testing.assert_allclose(solution.b, b, atol=1e-6)
    loose = problem.solve(tolerance=1e-4)
    assert problem.objective(loose.w, loose.b) == pytest.approx(problem.objective(w, b), rel=1e-5)


def test_products_among_active_examples_save_reading_and_change_nothing(monkeypatch, rng):
    problem, read, uses = make_problem(rng, 400, 900, np.float16, positives=0.4, cost=0.002), [], []

    def counting(*arguments):
        solution = descend(*arguments)
        read.append(solution[1])
        return solution

    monkeypatch.setattr(svm_solver, "BLOCK", 100)
    descend, gram = svm_solver._descend, svm_solver._gram
    monkeypatch.setattr(svm_solver, "_descend", counting)
    monkeypatch.setattr(svm_solver, "_gram", lambda *arguments: uses.append(len(arguments[1])) or gram(*arguments))
    quick, rows_read = problem.solve(1e-6), sum(read)
    assert len(uses) > 0
    assert max(uses) > 2 * svm_solver.BLOCK
    read.clear()
    monkeypatch.setattr(svm_solver, "WORTH", 0)
    slow = problem.solve(1e-6)
    assert rows_read < sum(read) / 2
    np.testing.assert_allclose(quick.w, slow.w, atol=1e-5)
    np.testing.assert_allclose(quick.b, slow.b, atol=1e-5)


def test_subnormal_and_negative_float16(rng):
    rows = (rng.integers(-1023, 1024, (80, 20)) * 2.0**-24).astype(np.float16)
    assert (np.abs(rows) < np.finfo(np.float16).smallest_normal).all()
    assert rows.any()
    problem = Problem(rows, np.arange(80) < 20, scale=2.0**14)
    solution, (w, b) = problem.solve(), problem.by_liblinear()
    np.testing.assert_allclose(solution.w, w, atol=1e-6)
    np.testing.assert_allclose(solution.b, b, atol=1e-6)


def test_every_finite_float16_is_read_exactly():
    rows = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(-1, 1)
    rows = rows[np.isfinite(rows[:, 0])]
    solution = decisions(rows, np.arange(len(rows)), np.ones(1), 0.0, 1.0)
    np.testing.assert_array_equal(solution, rows[:, 0].astype(np.float64))


@settings(deadline=None, max_examples=examples(60))
@given(
    st.integers(0, 2**32), st.integers(2, 40), st.integers(1, 60), st.sampled_from(DTYPES), st.sampled_from([1e-3, 0.1, 1.0]),
    st.sampled_from([0.3, 1.0]), st.booleans(),
)
def test_optimality_conditions(seed, examples, size, dtype, cost, density, warm):
    generator, tolerance = np.random.default_rng(seed), 1e-6
    problem = make_problem(generator, examples, size, dtype, density, positives=0.4, cost=cost, bias_multiplier=1.0)
    alphas = problem.bounds * generator.integers(0, 3, examples) / 2 if warm else None
    solution = problem.solve(tolerance, alphas)
    signs, bounds = np.where(problem.is_positive, 1, -1), problem.bounds
    assert solution.converged
    assert (solution.alphas >= 0).all()
    assert (solution.alphas <= bounds).all()
    # w and b are those of the alphas.
    np.testing.assert_allclose(solution.w, (signs * solution.alphas) @ problem.rows.astype(np.float64), atol=1e-9)
    np.testing.assert_allclose(solution.b, problem.bias_multiplier**2 * (signs @ solution.alphas), atol=1e-9)
    # Beyond the margin none counts, inside it each at its bound; moves within the last pass blur that somewhat.
    slopes, blur = problem.margins(solution.w, solution.b) - 1, 100 * tolerance
    assert (slopes[solution.alphas == 0] > -blur).all()
    assert (slopes[solution.alphas == bounds] < blur).all()
    assert (np.abs(slopes[(solution.alphas > 0) & (solution.alphas < bounds)]) < blur).all()


def test_warm_start_reaches_the_optimum_in_fewer_passes(monkeypatch, rng):
    problem = make_problem(rng, 300, 400, bias_multiplier=1.0)
    known = dataclasses.replace(problem, rows=problem.rows[:-1], is_positive=problem.is_positive[:-1]).solve()
    alphas, (w, b) = np.append(known.alphas, 0), problem.by_liblinear()
    solution = problem.solve(alphas=alphas)
    np.testing.assert_allclose(solution.w, w, atol=1e-6)
    np.testing.assert_allclose(solution.b, b, atol=1e-6)
    assert problem.solve(1e-6, solution.alphas).passes == 1
    monkeypatch.setattr(svm_solver, "WORTH", 0)  # passes on products cost less than others, and count as much
    cold, warm = ([problem.solve(1e-2, start, seed=seed).passes for seed in range(5)] for start in (None, alphas))
    assert 1.3 * sum(warm) < sum(cold)


def test_alphas_handed_in_stay_as_they_are(rng):
    problem, alphas = make_problem(rng), np.zeros(150)
    problem.solve(alphas=alphas)
    assert not alphas.any()


def test_duplicates_count_twice(rng):
    problem = make_problem(rng, 80, 30)
    twice = Problem(np.tile(problem.rows, (2, 1)), np.tile(problem.is_positive, 2), cost=problem.cost / 2)
    once, solution = problem.solve(), twice.solve()
    np.testing.assert_allclose(solution.w, once.w, atol=1e-6)
    np.testing.assert_allclose(solution.b, once.b, atol=1e-6)


@pytest.mark.parametrize("positives", [0, 1])
def test_one_example_of_a_class(positives, rng):
    problem = Problem(rng.normal(size=(50, 80)), (np.arange(50) == 0) == positives, bias_multiplier=1.0)
    solution, (w, b) = problem.solve(), problem.by_liblinear()
    np.testing.assert_allclose(solution.w, w, atol=1e-6)
    np.testing.assert_allclose(solution.b, b, atol=1e-6)


def test_rows_of_zeros_leave_the_bias():
    # a = C for the negatives, and the positive's margin, 1, sets its own: B^2 (a - 3 C) = 1.
    solution = Problem(np.zeros((4, 3), np.float16), np.arange(4) < 1, cost=0.01, positive_weight=9).solve()
    assert not solution.w.any()
    np.testing.assert_allclose([solution.b, *solution.alphas], [1, 0.04, 0.01, 0.01, 0.01], atol=1e-7)


@pytest.mark.parametrize("passes", [1, 3, 25])
def test_too_few_passes(passes, rng):
    solution = make_problem(rng, 100, 200, cost=1.0).solve(tolerance=1e-12, max_passes=passes)
    assert (solution.converged, solution.passes) == (False, passes)


def test_same_seed_same_bytes(rng):
    problem = make_problem(rng, 200, 250, np.float16)
    first, second, another = (problem.solve(1e-4, seed=seed) for seed in (5, 5, 6))
    assert first.w.tobytes() == second.w.tobytes()
    assert first.alphas.tobytes() == second.alphas.tobytes()
    assert first.w.tobytes() != another.w.tobytes()
