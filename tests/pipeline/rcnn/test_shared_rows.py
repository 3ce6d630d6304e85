import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.rcnn.shared_rows import SharedRows
from tests.tiers import examples


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_stay_at_their_places_in_their_dtype(dtype):
    rows, taken = np.arange(8, dtype=dtype).reshape(4, 2), SharedRows(5, 2)
    places = taken.add(rows, np.array([1, 2, 1, 1]))
    assert (taken.held, taken.row_bytes, taken.values.dtype) == (4, 2 * rows.itemsize, dtype)
    taken.release(places[:2])
    assert taken.held == 3  # another class needs the second row
    more = taken.add(-rows[:2], np.ones(2, int))
    assert not set(more) & set(places[1:])
    np.testing.assert_array_equal(taken.values[places[1:]], rows[1:])
    np.testing.assert_array_equal(taken.values[more], -rows[:2])


@settings(deadline=None, max_examples=examples(50))
@given(st.integers(0, 2**32), st.lists(st.integers(0, 6), max_size=6))
def test_each_class_finds_its_rows(seed, sizes):
    generator, rows, next_value = np.random.default_rng(seed), SharedRows(sum(sizes), 1), 0
    classes = [{} for _ in range(3)]  # place: value
    for size in sizes:
        wanted = generator.random((size, 3)) < 0.5
        wanted[:, 0] |= ~wanted.any(axis=1)
        values = np.arange(next_value, next_value + size)
        next_value += size
        places = rows.add(values[:, None].astype(np.float32), wanted.sum(axis=1))
        for by_place, mine in zip(classes, wanted.T):
            by_place |= zip(places[mine].tolist(), values[mine].tolist())
            leaving = [place for place in by_place if generator.random() < 0.3]
            rows.release(np.array(leaving, np.int64))
            for place in leaving:
                del by_place[place]
        assert rows.held == len(set().union(*classes))
        assert all(rows.values[place, 0] == value for by_place in classes for place, value in by_place.items())
