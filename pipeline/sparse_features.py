"""Rows of features without their zeros: a bit for each value says whether it is one, and the others lie one after the other.

Behind a ReLU most values are zeros. What is left has no long runs, so a general compression finds little more to do and is fast.

Shape shorthand: n rows, D features, B = D / 8 bytes of bits, rounded up.
"""

import numpy as np
from numba import njit


def pack(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Packs `features` float16 [n x D].

    Gives the bits uint8 [n x B], that of the first value the highest; the values whose bit is set; how many each row has. Values
    are told from zeros by their bits: -0.0 is kept as it is.
    """
    halves = np.ascontiguousarray(features).view(np.uint16)
    kept = halves != 0
    # By their places: four times as fast as `halves[kept]`, which branches on every value.
    values = halves.reshape(-1).take(np.flatnonzero(kept)).view(np.float16)
    return np.packbits(kept, axis=1), values, np.count_nonzero(kept, axis=1)


def unpack(bits: np.ndarray, values: np.ndarray, ends: np.ndarray, num_features: int) -> np.ndarray:
    """The features float16 [n x D] that `pack` was given. `ends` int64 [n]: where each row's values end in `values`.

    Raises OSError when bits and values disagree.
    """
    features = np.zeros((len(bits), num_features), np.float16)
    if not _fill(features.view(np.uint16), bits, values.view(np.uint16), ends):
        raise OSError("the bits of features and their values disagree")
    return features


@njit(nogil=True, cache=True)
def _fill(features, bits, values, ends):
    """Fills `features`, which are zeros; False if the values are not as many as the bits say."""
    place, last = 0, len(values)
    for row in range(len(features)):
        for byte in range(bits.shape[1]):
            pattern, first = int(bits[row, byte]), 8 * byte
            if pattern == 0:
                continue
            if place + 8 <= last and first + 8 <= features.shape[1]:
                for k in range(8):  # without a branch: three times as fast
                    bit = (pattern >> (7 - k)) & 1
                    features[row, first + k] = values[place] * bit
                    place += bit
            else:
                for k in range(min(8, features.shape[1] - first)):
                    if (pattern >> (7 - k)) & 1:
                        if place == last:
                            return False
                        features[row, first + k] = values[place]
                        place += 1
        if place != ends[row]:
            return False
    return place == last
