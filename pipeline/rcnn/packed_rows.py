"""Feature rows with many zeros, held in memory at their smallest and handed to the solver as a sparse matrix.

Features behind a ReLU are 10 to 60 % non-zero. A bit for every entry and the non-zero values in the store's own precision take
0.3 to 1.3 bytes an entry: less than dense float16 (2 bytes) at any such density, and a fraction of float32 CSR (0.8 to 4.8).

Shape shorthand: N rows, D feature size.
"""

import numpy as np
from scipy import sparse

UNPACKED_ROWS = 256  # rows whose bits are unpacked at a time: D bytes each


class PackedRows:
    """A matrix [N x D] that grows by blocks of rows."""

    def __init__(self, num_features: int):
        self.num_features = num_features
        self.nonzeros = 0
        self.nbytes = 0
        self._rows = 0
        self._blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: np.ndarray) -> None:
        """Add `rows` [n x D] below; their dtype is kept."""
        if len(rows):
            # By their bits, all but the sign: NumPy compares float16 a hundred times slower.
            nonzero = rows.view(f"u{rows.itemsize}") << 1 != 0
            values = rows.reshape(-1)[np.flatnonzero(nonzero)]
            self._add(np.packbits(nonzero, axis=1), np.count_nonzero(nonzero, axis=1), values)

    def keep(self, mask: np.ndarray) -> None:
        """Drop the rows where `mask` (bool [N]) is False."""
        if mask.all():
            return
        bits, counts, values = (np.concatenate(parts) for parts in zip(*self._blocks))
        self.__init__(self.num_features)
        if mask.any():
            self._add(bits[mask], counts[mask], values[np.repeat(mask, counts)])

    def _add(self, bits: np.ndarray, counts: np.ndarray, values: np.ndarray) -> None:
        self._blocks.append((bits, counts, values))
        self._rows += len(bits)
        self.nonzeros += values.size
        self.nbytes += bits.nbytes + counts.nbytes + values.nbytes

    def _slabs(self):
        """(column of every non-zero, values) of a few rows at a time."""
        for bits, counts, values in self._blocks:
            ends = np.concatenate([[0], np.cumsum(counts)])
            for start in range(0, len(bits), UNPACKED_ROWS):
                stop = min(start + UNPACKED_ROWS, len(bits))
                nonzero = np.unpackbits(bits[start:stop], axis=1, count=self.num_features).view(bool)
                yield np.flatnonzero(nonzero) % self.num_features, values[ends[start] : ends[stop]]


def to_csr(parts: list[PackedRows], factor: float) -> sparse.csr_array:
    """The rows of all `parts`, one part below the other, times `factor`: float64 CSR [N x D], 12 bytes a non-zero (< 2^31)."""
    counts = [counts for part in parts for _, counts, _ in part._blocks]
    # 32-bit indices, since scikit-learn takes no others.
    offsets = np.cumsum(np.concatenate([[0], *counts]), dtype=np.int32)
    columns, data = np.empty(offsets[-1], np.int32), np.empty(offsets[-1])
    start = 0
    for part in parts:
        for slab_columns, values in part._slabs():
            stop = start + len(values)
            columns[start:stop] = slab_columns
            np.multiply(values, factor, out=data[start:stop], dtype=np.float64)
            start = stop
    return sparse.csr_array((data, columns, offsets), shape=(len(offsets) - 1, parts[0].num_features))
