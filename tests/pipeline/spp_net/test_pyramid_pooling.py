"""The spatial pyramid against a slow version written from its description; by hand."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.spp_net.pyramid_pooling import map_windows, pyramid_pool
from tests.pipeline.networks.random_maps import make_map, make_windows
from tests.tiers import examples


def slow_pyramid(cells, windows, levels):
    rows = []
    for left, top, right, bottom in windows.tolist():
        window, row = cells[top:bottom, left:right], []
        for n in levels:
            for i, j in itertools.product(range(n), range(n)):
                y = [y for y in range(bottom - top) if y * n < (i + 1) * (bottom - top) and (y + 1) * n > i * (bottom - top)]
                x = [x for x in range(right - left) if x * n < (j + 1) * (right - left) and (x + 1) * n > j * (right - left)]
                row.append(window[y][:, x].max(axis=(0, 1)))
        rows.append(np.concatenate(row))
    return np.array(rows, cells.dtype).reshape(len(windows), cells.shape[2] * sum(n * n for n in levels))


@settings(deadline=None, max_examples=examples(200))
@given(
    st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(0, 8),
    st.sampled_from([(1, 2, 3, 6), (6, 3, 2, 1), (1,), (4, 6, 1), (5, 2, 3), (8, 4, 12)]), st.sampled_from(["f4", "f2"]),
    st.booleans(), st.integers(0, 1000),
)
def test_pyramid_equals_the_slow_version(height, width, depth, count, levels, dtype, positive, seed):
    cells, windows = make_map(height, width, depth, seed).astype(dtype), make_windows(count, height, width, seed)
    cells = np.maximum(cells, 0) if positive else cells
    pooled = pyramid_pool(cells, windows, levels)
    assert pooled.dtype == cells.dtype
    assert np.array_equal(pooled, slow_pyramid(cells, windows, levels))


@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_levels_from_others_equal_those_from_the_map(dtype):
    cells, windows = np.random.default_rng(0).standard_normal((43, 57, 33)).astype(dtype), make_windows(300, 43, 57)
    levels = (1, 2, 3, 6, 4)
    apart = np.concatenate([pyramid_pool(cells, windows, (n,)) for n in levels], axis=1)
    assert np.array_equal(pyramid_pool(cells, windows, levels), apart)
    assert np.array_equal(pyramid_pool(cells, windows), apart[:, : 50 * 33])


def test_pyramid_layout_by_hand():
    cells = np.array([[[1, -10], [2, -20], [7, 70]], [[3, -30], [4, -40], [8, 80]]], np.float16)
    assert pyramid_pool(cells, [[0, 0, 2, 2]], (1, 2)).tolist() == [[4, -10, 1, -10, 2, -20, 3, -30, 4, -40]]
    # Of three columns, both bins have the middle one; of one row, both have it.
    assert pyramid_pool(cells, [[0, 1, 3, 2]], (2,)).tolist() == [[4, -30, 8, 80, 4, -30, 8, 80]]


def test_pyramid_of_tensors_and_of_read_only_and_strided_maps():
    cells, windows = make_map(9, 11, 20), make_windows(20, 9, 11)
    expected = pyramid_pool(cells, windows)
    assert np.array_equal(pyramid_pool(torch.from_numpy(cells), windows), expected)
    assert np.array_equal(pyramid_pool(np.asfortranarray(cells), windows), expected)
    cells.flags.writeable = False
    assert np.array_equal(pyramid_pool(cells, windows), expected)


@pytest.mark.parametrize("features", [np.zeros((4, 5, 3)), np.zeros((4, 5), np.float32), np.zeros((4, 5, 3), np.int16)])
def test_a_pyramid_of_another_kind_is_refused(features):
    with pytest.raises(ValueError, match="expected float32 or float16"):
        pyramid_pool(features, [[0, 0, 1, 1]])


@pytest.mark.parametrize("window", [(0, 0, 0, 1), (2, 3, 4, 3), (-1, 0, 2, 2), (0, -1, 2, 2), (0, 0, 6, 2), (0, 0, 2, 5)])
def test_windows_outside_the_map_are_refused(window):
    with pytest.raises(ValueError, match="windows are empty or reach out of the map of 4 x 5 cells"):
        pyramid_pool(np.zeros((4, 5, 3), np.float32), [(0, 0, 5, 4), window])


@pytest.mark.parametrize("levels", [(1, 2, 2), (0, 1)])
def test_levels_that_make_no_pyramid_are_refused(levels):
    with pytest.raises(ValueError, match="expected different numbers from 1"):
        pyramid_pool(np.zeros((4, 5, 3), np.float32), [(0, 0, 5, 4)], levels)


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((1, 1, 160, 128), (1, 1, 10, 8)),  # pixels 1 .. 159 and 1 .. 127: floor(1 / 16) + 1 = 1; ceil(159 / 16) - 1 = 9
        ((0, 0, 161, 129), (1, 1, 10, 8)),  # the cell on the edge itself is not inside: 0 + 1, ceil(160 / 16) - 1
        ((-1, -1, 162, 130), (0, 0, 10, 8)),  # cell 10 of column 160 would be inside, but the map ends
        ((15, 31, 34, 50), (1, 2, 3, 4)),  # pixels 15 .. 33 have the centres 16 and 32; 31 .. 49 have 32 and 48
        ((17, 65, 32, 80), (2, 5, 3, 6)),  # 17 .. 31 and 65 .. 79 have none; their middles 24 and 72 are halfway, so 2 and 5
        ((17, 65, 31, 79), (1, 4, 2, 5)),  # middles 23.5 and 71.5
        ((17, 1, 20, 128), (1, 1, 2, 8)),  # no column, but rows
        ((300, 300, 400, 400), (9, 7, 10, 8)),
        ((-200, -90, -100, -20), (0, 0, 1, 1)),
    ],
)
def test_windows_by_hand(box, window):
    assert map_windows(np.array([box], np.float32), 8, 10).tolist() == [list(window)]


@settings(deadline=None, max_examples=examples(200))
@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([16, 5]), st.integers(0, 1000))
def test_windows_hold_the_centres_inside(height, width, stride, seed):
    rng = np.random.default_rng(seed)
    corners = rng.integers(-40, 16 * 4 * 14, (20, 2)) / 4
    boxes = np.concatenate([corners, corners + rng.integers(4, 200, (20, 2)) / 4], axis=1)
    windows = map_windows(boxes, height, width, stride)
    assert windows.dtype == np.int64
    for box, window in zip(boxes, windows):
        for side, count in enumerate((width, height)):
            first, last = box[side], box[side + 2] - 1
            inside = [i for i in range(count) if first < stride * i < last]
            # Among equals the second, hence -i.
            expected = inside or [min(range(count), key=lambda i: (abs(stride * i - (first + last) / 2), -i))]
            assert list(range(window[side], window[side + 2])) == expected


def test_no_windows():
    windows = map_windows(np.empty((0, 4), np.float32), 5, 6)
    assert windows.shape == (0, 4)
    assert pyramid_pool(np.ones((5, 6, 3), np.float32), windows).shape == (0, 150)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("count", [1, 5, 300])
def test_threads_change_no_byte(count):
    cells, windows = np.random.default_rng(0).standard_normal((30, 40, 257), np.float32), make_windows(count, 30, 40)
    pooled = set()
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        pooled.add(b"".join(pyramid_pool(values, windows).tobytes() for values in (cells, cells.astype("f2"))))
    assert len(pooled) == 1
