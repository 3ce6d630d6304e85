"""The SVM of svm_solver.py by scikit-learn's `LinearSVC`, that is by liblinear, which the release calls.

It solves the same problem by the same kind of steps, so it is the measure of ours. It starts from nothing each time, and takes
28 bytes for each feature that is not 0: 12 in the sparse matrix that is handed in, 16 in liblinear's own copy. A dense matrix would
take 8 for each feature in place of the 12: more, unless two features in three are not 0.

Shape shorthand: N examples, R rows held, D feature size.
"""

import warnings

import numpy as np

from pipeline.errors import PipelineError
from pipeline.rcnn.scaling import widen
from pipeline.rcnn.svm_settings import WARM_START, SvmSettings
from pipeline.rcnn.svm_solver import Solution


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
    """`rows[chosen]` times `scale` as a sparse float64 matrix [N x D], made row by row, so that nothing is held twice."""
    from scipy.sparse import csr_matrix

    ends = np.cumsum([0, *(np.count_nonzero(widen(rows[place])) for place in chosen)])
    if ends[-1] > np.iinfo(np.int32).max:
        raise PipelineError(
            f"liblinear counts to 2^31 - 1, and {len(chosen)} examples have {ends[-1]} features that are not 0; use the solver "
            f"{WARM_START}, or lower cache_gigabytes"
        )
    values, columns = np.empty(ends[-1]), np.empty(ends[-1], np.int32)
    for place, start, end in zip(chosen, ends[:-1], ends[1:], strict=True):
        row = widen(rows[place])
        columns[start:end] = np.flatnonzero(row)
        values[start:end] = row[columns[start:end]]
    values *= scale
    return csr_matrix((values, columns, ends.astype(np.int32)), (len(chosen), rows.shape[1]))
