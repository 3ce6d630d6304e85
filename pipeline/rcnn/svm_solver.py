"""A linear SVM by dual coordinate descent, started from an earlier one (Hsieh et al., ICML 2008; liblinear's `-s 3`).

With the constant feature B appended to each row x_i, labels y_i = 1 or -1, and U_i the cost C, of a positive times its weight:

    primal   min over w of          0.5 w.w + sum of U_i max(0, 1 - y_i w.x_i)
    dual     min over 0 <= a <= U   0.5 w.w - sum of a_i,     w = sum of a_i y_i x_i

1. w is summed up from the given a: 0, or those of the last training, with 0 for new examples.
2. A pass goes through the active examples in random order. G_i = y_i w.x_i - 1 is the slope along a_i, and its projection P_i
   leaves out what would lead beyond a bound: a_i becomes a_i - G_i / x_i.x_i, clipped to its bounds, and w follows.
3. Shrinking: an example at a bound whose slope points beyond it, by more than any P of the last pass, leaves the active ones.
4. When max P - min P over a pass is at most `tolerance`, all examples become active again; when it holds for all, it is the end.
   NOTE: 0 counts as a P, here and in step 3. Without it liblinear stops at once where all P happen to be equal.
5. The passes over the few that stay active converge slowly, and read D values an example. So once enough rows were read to make
   up for it, the products of the active examples with each other are computed together, and passes go on with these alone until
   the active ones are solved well below `tolerance`. They are float32, but step 2 goes on from w itself, and step 4 decides.

Why not liblinear (svm_liblinear.py): it starts from nothing each time, and copies the examples. For the whole mining it takes
more CPU seconds and memory than ours (docs/measured.md): with 25,600 values per region 4.3 times the seconds and 3.1 times the
memory, with 6,400 values 2.2 and 1.6 times, with 2,048 values 1.2 and 1.5 times. At 2,048 most of the time goes into reading and
scoring.

w and a are float64. Rows are read as they are stored, float16 by its bits; a row is widened once for its product and its update.
Compiled functions call none of another file: numba's cache would not notice that one changed.

Shape shorthand: N examples, R rows held, D feature size.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import overload

HALF_BIAS = np.float32(2.0**112)  # the exponents of float32 and float16 are biased by 127 and 15
PASSES = 10  # over the rows, before products are used and between two uses of them
WORTH = 25  # products that are computed in the time of reading one row for its slope and its update (measured)
MOST = 3000  # rows whose products are computed: 36 MB
BLOCK = 256  # rows widened at a time for products
PRODUCTS_TOLERANCE = 0.1  # passes on products are cheap, so they run to a tenth of the tolerance
NO_SLOPE = 1e-12  # liblinear's: smaller projected slopes move nothing
# Sums in any order, so that they use vector instructions: the order is the compiler's, the same each time.
ANY_ORDER = {"reassoc", "contract", "nsz"}


@dataclass(frozen=True, eq=False)
class Solution:
    """w float64 [D] and b apply to features times `scale`; `alphas` float64 [N]; `converged` is False after too many passes."""

    w: np.ndarray
    b: float
    alphas: np.ndarray
    passes: int
    converged: bool


class Problem(NamedTuple):
    """The examples rows[chosen], y_i and U_i of each [N], x_i.x_i of each, and by what u.x_i and the sum of a_i y_i count."""

    rows: np.ndarray
    chosen: np.ndarray
    signs: np.ndarray
    bounds: np.ndarray
    curvatures: np.ndarray
    factor: float
    bias_factor: float


def solve(
    rows: np.ndarray, chosen: np.ndarray, is_positive: np.ndarray, alphas: np.ndarray, *, scale: float, cost: float,
    positive_weight: float, bias_multiplier: float, tolerance: float, max_passes: int, seed: int,
) -> Solution:
    """The SVM of the examples `rows[chosen]` times `scale`, from `alphas` [N] on.

    `rows` [R x D] is float16, float32 or float64, finite; `chosen` int64 [N]; `is_positive` bool [N]. `seed` orders the
    passes. The other arguments are those of `SvmSettings`.
    """
    rows, alphas = _bits(rows), alphas.copy()
    signs = np.where(is_positive, 1.0, -1.0)
    bounds = np.where(is_positive, cost * positive_weight, cost)
    # The weights u of the unscaled features are kept: w = scale u, and w.x_i = scale^2 u.x_i + B^2 (sum of a_i y_i).
    factor, bias_factor = scale**2, bias_multiplier**2
    u, norms = np.zeros(rows.shape[1]), np.empty(len(chosen))
    _add_rows(rows, chosen, signs * alphas, u, norms)
    problem = Problem(rows, chosen, signs, bounds, factor * norms + bias_factor, factor, bias_factor)
    order, bands = np.arange(len(chosen)), np.array([len(chosen), np.inf, -np.inf])
    passes, read, converged = 0, 0, False
    while not converged and passes < max_passes:
        most = min(PASSES, max_passes - passes)
        done, visits, converged = _descend(problem, (alphas, u, order, bands), tolerance, most, seed + passes)
        passes, read = passes + done, read + visits
        active = order[: int(bands[0])]
        if not converged and len(active)**2 < WORTH * read and len(active) < min(len(u), MOST):
            active_alphas = alphas[active]
            slopes = signs[active] * (factor * _products(rows, chosen[active], u) + bias_factor * (signs @ alphas)) - 1
            some = problem._replace(chosen=chosen[active], signs=signs[active], bounds=bounds[active])
            limits = max(PRODUCTS_TOLERANCE * tolerance, 2 * NO_SLOPE), max_passes - passes
            done = _descend_on_products(some, _gram(rows, chosen[active]), (active_alphas, slopes), limits, seed + passes)
            _add_rows(rows, chosen[active], signs[active] * (active_alphas - alphas[active]), u, np.empty(len(active)))
            alphas[active] = active_alphas
            passes, read = passes + done, 0
    return Solution(scale * u, bias_factor * (signs @ alphas), alphas, passes, converged)


def decisions(rows: np.ndarray, chosen: np.ndarray, w: np.ndarray, b: float, scale: float) -> np.ndarray:
    """Decision values float64 [N] of `rows[chosen]` times `scale`."""
    return _products(_bits(rows), chosen, w.astype(np.float64)) * scale + b


def _bits(rows: np.ndarray) -> np.ndarray:
    """float16 rows as uint16, since numba knows no float16; others as they are."""
    return rows.view(np.uint16) if rows.dtype == np.float16 else rows


def _widen(row, buffer):
    """`row` [D] in float32 or float64: the bits of float16 written to `buffer` float32 [D], other rows as they are."""
    bits = buffer.view(np.uint32)
    for k in range(row.size):
        half = np.uint32(row[k])
        bits[k] = (half & np.uint32(0x8000)) << np.uint32(16) | (half & np.uint32(0x7FFF)) << np.uint32(13)
    # Subnormals are float32's now; the product makes them normal.
    for k in range(row.size):
        buffer[k] *= HALF_BIAS
    return buffer


@overload(_widen)
def _choose(row, buffer):
    """What `_widen` is in compiled code, by the type of `row`."""
    return _widen if row.dtype.bitwidth == 16 else lambda row, buffer: row


@njit(nogil=True, fastmath=ANY_ORDER)
def _dot(u, x):
    total = 0.0
    for k in range(u.size):
        total += u[k] * np.float64(x[k])
    return total


@njit(nogil=True, fastmath=ANY_ORDER)
def _add(u, step, x):
    for k in range(u.size):
        u[k] += step * np.float64(x[k])


@njit(nogil=True, fastmath=ANY_ORDER)
def _square(x):
    total = 0.0
    for k in range(x.size):
        total += np.float64(x[k]) * np.float64(x[k])
    return total


@njit(nogil=True, cache=True)
def _add_rows(rows, chosen, steps, u, norms):
    """Adds `steps` times the rows to `u` and writes their squared norms."""
    buffer = np.empty(u.size, np.float32)
    for i in range(chosen.size):
        x = _widen(rows[chosen[i]], buffer)
        norms[i] = _square(x)
        if steps[i] != 0:
            _add(u, steps[i], x)


@njit(nogil=True, cache=True)
def _products(rows, chosen, w):
    buffer, products = np.empty(w.size, np.float32), np.empty(chosen.size)
    for i in range(chosen.size):
        products[i] = _dot(w, _widen(rows[chosen[i]], buffer))
    return products


@njit(nogil=True, cache=True)
def _widen_rows(rows, chosen, widened):
    """Writes `rows[chosen]` to the first rows of `widened`, and returns these."""
    buffer = np.empty(rows.shape[1], np.float32)
    for i in range(chosen.size):
        row = _widen(rows[chosen[i]], buffer)
        for j in range(row.size):
            widened[i, j] = row[j]
    return widened[: chosen.size]


def _gram(rows, chosen):
    """Products float32 [n x n] of `rows[chosen]`, two blocks of rows at a time."""
    gram = np.empty((len(chosen), len(chosen)), np.float32)
    upper, left = np.empty((2, BLOCK, rows.shape[1]), np.float32)
    for i in range(0, len(chosen), BLOCK):
        first = _widen_rows(rows, chosen[i : i + BLOCK], upper)
        for k in range(0, i + 1, BLOCK):
            second = first if k == i else _widen_rows(rows, chosen[k : k + BLOCK], left)
            gram[i : i + BLOCK, k : k + BLOCK] = first @ second.T
            gram[k : k + BLOCK, i : i + BLOCK] = gram[i : i + BLOCK, k : k + BLOCK].T
    return gram


@njit(nogil=True, cache=True)
def _descend(problem, state, tolerance, max_passes, seed):
    """Steps 2 to 4, on the `state` (alphas, u, order, bands) in place; returns the passes, the rows read, and whether that
    sufficed."""
    rows, chosen, signs, bounds, curvatures, factor, bias_factor = problem
    alphas, u, order, bands = state
    np.random.seed(seed)  # of numba's generator, which is not NumPy's
    buffer, read = np.empty(u.size, np.float32), 0
    beta = (signs * alphas).sum()
    active, highest, lowest = int(bands[0]), bands[1], bands[2]  # P of the last pass; none shrinks where they are infinite
    for number in range(max_passes):
        np.random.shuffle(order[:active])
        read += active
        top, bottom = 0.0, 0.0
        place = 0
        while place < active:
            i = order[place]
            x = _widen(rows[chosen[i]], buffer)
            slope = signs[i] * (factor * _dot(u, x) + bias_factor * beta) - 1
            at_zero, at_bound = alphas[i] == 0, alphas[i] == bounds[i]
            if (at_zero and slope > highest) or (at_bound and slope < lowest):
                active -= 1
                order[place], order[active] = order[active], i
                continue
            projected = min(slope, 0.0) if at_zero else max(slope, 0.0) if at_bound else slope
            top, bottom = max(top, projected), min(bottom, projected)
            if abs(projected) > NO_SLOPE:
                moved = min(max(alphas[i] - slope / curvatures[i], 0.0), bounds[i])
                step = (moved - alphas[i]) * signs[i]
                alphas[i] = moved
                beta += step
                _add(u, step, x)
            place += 1
        if top - bottom <= tolerance:
            if active == order.size:
                return number + 1, read, True
            active, highest, lowest = order.size, np.inf, -np.inf
        else:
            highest, lowest = top if top > 0 else np.inf, bottom if bottom < 0 else -np.inf
        bands[0], bands[1], bands[2] = active, highest, lowest
    return max_passes, read, False


@njit(nogil=True, cache=True, fastmath=ANY_ORDER)
def _descend_on_products(problem, products, state, limits, seed):
    """Step 5: step 2 without shrinking, with slopes that follow; returns the passes. Changes the `state` (alphas, slopes).

    `limits` are the tolerance and the most passes.
    """
    _, _, signs, bounds, _, factor, bias_factor = problem
    (alphas, slopes), (tolerance, max_passes) = state, limits
    np.random.seed(seed)
    order = np.arange(alphas.size)
    for number in range(max_passes):
        np.random.shuffle(order)
        top, bottom = 0.0, 0.0
        for i in order:
            slope = slopes[i]
            projected = min(slope, 0.0) if alphas[i] == 0 else max(slope, 0.0) if alphas[i] == bounds[i] else slope
            top, bottom = max(top, projected), min(bottom, projected)
            if abs(projected) > NO_SLOPE:
                moved = min(max(alphas[i] - slope / (factor * products[i, i] + bias_factor), 0.0), bounds[i])
                step = (moved - alphas[i]) * signs[i]
                alphas[i] = moved
                for k in range(slopes.size):
                    slopes[k] += step * signs[k] * (factor * products[i, k] + bias_factor)
        if top - bottom <= tolerance:
            return number + 1
    return max_passes
