import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.rcnn import packed_rows
from pipeline.rcnn.packed_rows import PackedRows, to_csr


def sparse_rows(generator, rows, columns, dtype):
    return (generator.normal(size=(rows, columns)) * (generator.random((rows, columns)) < 0.4)).astype(dtype)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 2**32), st.integers(1, 20), st.sampled_from([np.float16, np.float32]), st.lists(st.integers(0, 9), max_size=4)
)
def test_packing_is_lossless(seed, columns, dtype, sizes):
    generator = np.random.default_rng(seed)
    packed, dense = PackedRows(columns), np.zeros((0, columns), dtype)
    for size in sizes:
        rows = sparse_rows(generator, size, columns, dtype)
        packed.append(rows)
        dense = np.concatenate([dense, rows])
        mask = generator.random(len(dense)) < 0.7
        packed.keep(mask)
        dense = dense[mask]
    assert len(packed) == len(dense)
    assert packed.nonzeros == np.count_nonzero(dense)
    np.testing.assert_array_equal(to_csr([packed], 1.0).toarray(), dense)


def test_parts_are_stacked_and_scaled_in_float64(monkeypatch, rng):
    monkeypatch.setattr(packed_rows, "UNPACKED_ROWS", 3)
    above, below = sparse_rows(rng, 7, 10, np.float16), sparse_rows(rng, 4, 10, np.float16)
    parts = [PackedRows(10), PackedRows(10)]
    parts[0].append(above)
    parts[1].append(below)
    stacked = to_csr(parts, 0.3)
    np.testing.assert_array_equal(stacked.toarray(), np.concatenate([above, below]).astype(np.float64) * 0.3)
    assert stacked.indices.dtype == np.int32  # scikit-learn takes no other
    assert stacked.has_sorted_indices


def test_half_of_zeros_takes_less_than_dense_float16(rng):
    rows = np.maximum(rng.normal(size=(50, 4096)), 0).astype(np.float16)
    packed = PackedRows(4096)
    packed.append(rows)
    # A bit for each entry, a value for half of them, a count for each row.
    assert packed.nbytes == pytest.approx(rows.nbytes * (0.5 + 1 / 16), rel=0.02)
