"""float16 features as wider numbers.

Shape shorthand: n regions, D features.
"""

import numpy as np
from numba import njit

HALF_BIAS = np.float32(2.0**112)  # the exponents of float32 and float16 are biased by 127 and 15
BLOCK = 4096  # values that stay in the first-level cache between two loops
NORM_BLOCK = 1 << 15  # values whose squares stay in the second-level cache: six times as fast as all rows at once


def row_norms(features: np.ndarray) -> np.ndarray:
    """The L2 norm float64 [n] of each row of `features` [n x D]: the square of a float16 above 255 overflows."""
    norms = np.empty(len(features))
    rows = max(1, NORM_BLOCK // max(1, features.shape[1]))
    for first in range(0, len(features), rows):
        block = features[first : first + rows]
        norms[first : first + rows] = np.linalg.norm(widen(block).astype(np.float64), axis=1)
    return norms


def widen(features: np.ndarray) -> np.ndarray:
    """float16 features as float32, others as they are.

    By their bits: NumPy's own conversion branches on every zero and takes ten times as long on features behind a ReLU.
    """
    if features.dtype != np.float16:
        return features
    widened = np.empty(features.shape, np.float32)
    _widen_bits(np.ascontiguousarray(features).view(np.uint16).reshape(-1), widened.reshape(-1))
    return widened


@njit(nogil=True, cache=True)
def _widen_bits(halves, widened):
    for start in range(0, halves.size, BLOCK):
        source, target = halves[start : start + BLOCK], widened[start : start + BLOCK]
        bits = target.view(np.uint32)
        for k in range(source.size):
            half = np.uint32(source[k])
            # All exponent bits set: not a finite number, and none in float32.
            infinite = np.uint32(0x7F800000) if half & np.uint32(0x7C00) == np.uint32(0x7C00) else np.uint32(0)
            bits[k] = (half & np.uint32(0x8000)) << np.uint32(16) | (half & np.uint32(0x7FFF)) << np.uint32(13) | infinite
        # Subnormals are float32's now; the product makes them normal.
        for k in range(source.size):
            target[k] *= HALF_BIAS
