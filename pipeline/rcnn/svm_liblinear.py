"""The SVM of svm_solver.py by scikit-learn's `LinearSVC`, that is by liblinear, which the release calls.

It solves the same problem by the same kind of steps, so our solver is measured by it. It starts from nothing each time. Each
feature that is not 0 takes 28 bytes: 12 in the sparse matrix that is handed in, and 16 in liblinear's own copy. In a dense matrix
each feature would take 8 bytes, which is more than the 12 unless two features in three are not 0.

Shape shorthand: N examples, R rows held, D feature size.
"""

import warnings

import numpy as np
from numba import njit

from pipeline.errors import PipelineError
from pipeline.rcnn.scaling import widen
from pipeline.rcnn.svm_settings import WARM_START, SvmSettings
from pipeline.rcnn.svm_solver import Solution

MOST = 2**31 - 1  # values: liblinear's indices are int32
BLOCK = 64  # rows at a time


def solve_by_liblinear(
    *, rows: np.ndarray, chosen: np.ndarray, is_positive: np.ndarray, scale: float, settings: SvmSettings, seed: int
) -> Solution:
    """The SVM of the examples `rows[chosen]` times `scale`.

    `rows` [R x D] is finite, `chosen` int64 [N], `is_positive` bool [N] with both kinds in it. `seed` orders the passes.
    Raises PipelineError for more features than liblinear can count.

    `alphas` of the solution are 0, because scikit-learn does not tell them.
    """
    from sklearn.exceptions import ConvergenceWarning  # here, because importing it takes a second, which ours does without
    from sklearn.svm import LinearSVC

    svm = LinearSVC(
        loss="hinge", C=settings.cost, class_weight={1: settings.positive_weight}, intercept_scaling=settings.bias_multiplier,
        tol=settings.tolerance, max_iter=settings.max_iterations, random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the caller tells the user
        svm.fit(_sparse(rows, chosen, scale), np.where(is_positive, 1, -1))
    passes = int(svm.n_iter_)
    return Solution(svm.coef_[0], float(svm.intercept_[0]), np.zeros(len(chosen)), passes, passes < settings.max_iterations)


def _sparse(rows: np.ndarray, chosen: np.ndarray, scale: float):
    """`rows[chosen]` times `scale` as a sparse float64 matrix [N x D], made in blocks, so that nothing is held twice."""
    from scipy.sparse import csr_matrix

    ends = np.zeros(len(chosen) + 1, np.int64)
    for first in range(0, len(chosen), BLOCK):
        _count(widen(rows[chosen[first : first + BLOCK]]), ends[first + 1 :])
    ends = np.cumsum(ends)
    if ends[-1] > MOST:
        raise PipelineError(
            f"liblinear: found {ends[-1]} values that are not 0 in {len(chosen)} examples, expected at most {MOST}; "
            f"use the solver {WARM_START}, or lower cache_gigabytes"
        )
    values, columns = np.empty(ends[-1] + 1), np.empty(ends[-1] + 1, np.int32)
    for first in range(0, len(chosen), BLOCK):
        start = ends[first]
        _write(widen(rows[chosen[first : first + BLOCK]]), values[start:], columns[start:])
    values, columns = values[:-1], columns[:-1]
    values *= scale
    return csr_matrix((values, columns, ends.astype(np.int32)), (len(chosen), rows.shape[1]))


@njit(nogil=True, cache=True)
def _count(block, counts):
    """Writes how many values of each row are not 0."""
    for i in range(block.shape[0]):
        count = 0
        for k in range(block.shape[1]):
            count += block[i, k] != 0
        counts[i] = count


@njit(nogil=True, cache=True)
def _write(block, values, columns):
    """Writes the values that are not 0, row after row, and their columns; may write one value more."""
    place = 0
    for i in range(block.shape[0]):
        for k in range(block.shape[1]):
            values[place], columns[place] = block[i, k], k
            place += block[i, k] != 0  # without a branch, which is wrong for every third value
