"""Crops against the release's own, against a slow version written from its description, and by hand."""

from concurrent.futures import ThreadPoolExecutor
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.rcnn.warp import crop_geometry, warp
from tests.tiers import examples

MODES = ("warp", "square")
MEAN, STD = np.array([123.0, 117.0, 104.0]), np.array([58.0, 57.0, 57.5])


def make_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def crops_of(image, boxes, size, mean=MEAN, std=STD, **options):
    """Crops in a batch that held garbage before."""
    out = np.full((len(boxes), size, size, 3), np.nan, np.float32)
    warp(image, np.asarray(boxes), out, mean, std, **options)
    return out


def slow_round(value):
    return int(Decimal(value).quantize(Decimal(1), ROUND_HALF_UP))  # Decimal's "up" is away from zero


def slow_axis(first, last, half, limit, size, padding, enlarge):
    """One axis of one box, 1-based inclusive: (window's first pixel, its pixels, offset, pixels in the crop); None if unseen."""
    if enlarge:
        scale = size / (size - 2 * padding)
        centre = first + (last - first + 1) / 2
        first, last = centre - half * scale, centre + half * scale
    first, last = slow_round(first), slow_round(last)
    last = max(first, last)
    scale = size / (last - first + 1)
    offset = slow_round(max(0, 1 - first) * scale)
    inside = min(last, limit) - max(first, 1) + 1
    resized = min(slow_round(inside * scale), size - offset)
    return (max(first, 1), inside, offset, resized) if inside > 0 and resized > 0 else None


def slow_crop(image, box, size, padding, mode):
    (x1, y1), (x2, y2) = box[:2] + 1, box[2:]
    half_x, half_y = (x2 - x1 + 1) / 2, (y2 - y1 + 1) / 2
    if mode == "square":
        half_x = half_y = max(half_x, half_y)
    enlarge = padding > 0 or mode == "square"
    crop = np.zeros((size, size, 3))
    axis_x = slow_axis(x1, x2, half_x, image.shape[1], size, padding, enlarge)
    axis_y = slow_axis(y1, y2, half_y, image.shape[0], size, padding, enlarge)
    if axis_x is None or axis_y is None:
        return crop
    first, inside, offset, resized = np.transpose([axis_y, axis_x])
    window = image[first[0] - 1 : first[0] - 1 + inside[0], first[1] - 1 : first[1] - 1 + inside[1]].astype(np.float64)
    # Border replicated by hand, so that no position needs to be clamped.
    window = np.pad(window, ((1, 1), (1, 1), (0, 0)), "edge")
    for axis in (0, 1):
        position = (np.arange(resized[axis]) + 0.5) * inside[axis] / resized[axis] + 0.5
        low = np.floor(position).astype(int)
        share = np.expand_dims(position - low, [1 - axis, 2])
        window = window.take(low, axis) * (1 - share) + window.take(low + 1, axis) * share
    crop[offset[0] : offset[0] + resized[0], offset[1] : offset[1] + resized[1]] = (window - MEAN) / STD
    return crop


def test_geometry_equals_the_release(oracle):
    data = oracle("crop_geometry.npz")
    release = np.column_stack([data[name] for name in ("window", "pad_x1", "pad_y1", "crop_width", "crop_height")])
    for case, expected in enumerate(release - [1, 1, 0, 0, 0, 0, 0, 0]):
        row = data["case_box"][case]
        box = data["boxes"][row].astype(np.float64) - [1, 1, 0, 0]
        height, width = data["image_sizes"][data["box_image"][row]]
        geometry = crop_geometry(box[None], height, width, 227, data["case_padding"][case], mode=MODES[data["case_mode"][case]])
        assert np.concatenate(geometry, axis=1)[0].tolist() == expected.tolist(), data["box_note"][row]


def test_pixels_equal_the_release(oracle):
    geometry, data = oracle("crop_geometry.npz"), oracle("crop_pixels.npz")
    crops = np.empty((len(geometry["case_box"]), 227, 227, 3), np.float32)
    for case, row in enumerate(geometry["case_box"]):
        image = data[f"image_{geometry['box_image'][row]}"]
        box = geometry["boxes"][row].astype(np.float64) - [1, 1, 0, 0]
        padding, mode = geometry["case_padding"][case], MODES[geometry["case_mode"][case]]
        warp(image, box[None], crops[case : case + 1], data["mean_bgr"][::-1], np.ones(3), padding=padding, mode=mode)
    sampled = crops[:, data["sample_index"][:, None], data["sample_index"], ::-1]
    assert np.abs(sampled - data["samples"]).max() < 0.01
    assert np.abs(crops[data["crop_case"], ..., ::-1] - data["crops"]).max() < 0.01


quarters = st.integers(-160, 240).map(lambda value: value / 4)
sides = st.integers(1, 320).map(lambda value: value / 4)


@settings(deadline=None, max_examples=examples(300))
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)), st.tuples(quarters, quarters, sides, sides), st.integers(1, 48),
    st.integers(0, 23), st.sampled_from(MODES), st.booleans(),
)
@example((40, 40), (0.0, 0.0, 40.0, 1.0), 16, 7, "warp", False)  # the window reaches 140 pixels out on both sides
@example((20, 30), (5.25, 5.25, 0.25, 0.25), 8, 0, "warp", True)  # rounds to nothing
def test_crops_equal_the_slow_version(image_size, corner_and_side, size, padding, mode, mirror):
    image = make_image(*image_size)
    padding = min(padding, (size - 1) // 2)
    x1, y1, width, height = corner_and_side
    box = np.array([x1, y1, x1 + width, y1 + height])
    expected = slow_crop(image, box, size, padding, mode)
    crop = crops_of(image, box[None], size, padding=padding, mode=mode, mirror=mirror)[0]
    np.testing.assert_allclose(crop, expected[:, ::-1] if mirror else expected, atol=1e-4)


def test_negative_half_rounds_away_from_zero():
    # 1-based: columns 1..8, rows 1..3; centre (5, 2.5), half side 4. Columns 1..9; rows -1.5..6.5, so -2..7: 3 of 10 outside.
    window, offset, size = crop_geometry(np.array([[0, 0, 8, 3]]), 75, 130, 227, padding=0, mode="square")
    assert (window.tolist(), offset.tolist(), size.tolist()) == ([[0, 0, 9, 7]], [[0, 68]], [[227, 159]])


def test_window_never_reaches_beyond_the_crop():
    # 8 pixels to 4, one of them outside: 0.5 pixels of padding and 3.5 of window, both rounded up, are one too many.
    window, offset, size = crop_geometry(np.array([[-1, 0, 7, 8]]), 8, 8, 4, padding=0)
    assert (window.tolist(), offset.tolist(), size.tolist()) == ([[0, 0, 7, 8]], [[1, 0]], [[3, 4]])


def test_context_fills_the_padding():
    # Scale 64 / (64 - 32) = 2 about the centre (51, 61): 1-based 31..71 and 51..71.
    window, offset, size = crop_geometry(np.array([[40, 55, 60, 65]]), 100, 100, 64)
    assert (window.tolist(), offset.tolist(), size.tolist()) == ([[30, 50, 71, 71]], [[0, 0]], [[64, 64]])


def test_bilinear_by_hand_and_only_the_window_is_read():
    image = np.full((3, 4, 3), 255, np.uint8)
    image[1, 1:3] = [[0, 10, 20], [100, 30, 20]]
    crop = crops_of(image, [[1, 1, 3, 2]], 4, mean=[0, 10, 0], std=[1, 2, 10], padding=0)[0]
    assert crop[0].tolist() == [[0, 0, 2], [25, 2.5, 2], [75, 7.5, 2], [100, 10, 2]]
    assert (crop == crop[0]).all()


def test_no_antialiasing():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, ::4] = 200
    # 8 pixels to 2: positions 1.5 and 5.5 lie between black pixels; any wider filter would see white ones.
    assert not crops_of(image, [[0, 0, 8, 8]], 2, mean=np.zeros(3), padding=0).any()


@pytest.mark.parametrize("mode", MODES)
def test_mirror_flips_the_finished_crop(mode):
    boxes = np.array([[-7, 3, 20, 30], [5, 5, 25, 12], [30, 20, 55, 44]])
    image = make_image(40, 50)
    plain = crops_of(image, boxes, 33, padding=4, mode=mode)
    assert (plain != plain[:, :, ::-1]).any()
    assert np.array_equal(crops_of(image, boxes, 33, padding=4, mode=mode, mirror=True), plain[:, :, ::-1])
    plain[[0, 2]] = plain[[0, 2], :, ::-1]
    assert np.array_equal(crops_of(image, boxes, 33, padding=4, mode=mode, mirror=np.array([True, False, True])), plain)


@pytest.mark.parametrize(
    "box", [(-90, 0, -40, 20), (60, 0, 90, 20), (0, -90, 20, -50), (0, 60, 20, 90), (-2e9, 0, 2e9, 20), (-2e9, 0, -1e9, 20)]
)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", [0, 4])
def test_nothing_of_the_image_in_view(box, mode, padding):
    assert not np.concatenate(crop_geometry(np.array([box]), 40, 50, 32, padding, mode=mode), axis=1).any()
    assert not crops_of(make_image(40, 50), [box], 32, padding=padding, mode=mode).any()


def test_no_boxes():
    assert [part.shape for part in crop_geometry(np.empty((0, 4)), 40, 50, 64)] == [(0, 4), (0, 2), (0, 2)]
    assert crops_of(make_image(40, 50), np.empty((0, 4)), 64).shape == (0, 64, 64, 3)


def test_one_pixel_image():
    crop = crops_of(make_image(1, 1), [[0, 0, 1, 1]], 5, padding=0)[0]
    np.testing.assert_allclose(crop, np.broadcast_to((make_image(1, 1) - MEAN) / STD, crop.shape), rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_parts_of_a_batch_in_threads_have_the_same_bytes(mode):
    rng = np.random.default_rng(1)
    corners = rng.uniform(-20, 80, (64, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 60, (64, 2))], axis=1)
    image, batch = make_image(90, 110), np.full((64, 40, 40, 3), np.nan, np.float32)
    with ThreadPoolExecutor(8) as pool:
        parts = [slice(i, i + 4) for i in range(0, 64, 4)]
        list(pool.map(lambda part: warp(image, boxes[part], batch[part], MEAN, STD, padding=16, mode=mode), parts))
    assert batch.tobytes() == crops_of(image, boxes, 40, mode=mode).tobytes()


def test_read_only_and_strided_images():
    image, boxes = make_image(40, 50), np.array([[5, 5, 25, 12]], np.float32)
    expected = crops_of(image.copy()[::-1, ::-1].copy(), boxes, 32, padding=4)
    strided = image[::-1, ::-1]
    assert np.array_equal(crops_of(strided, boxes, 32, padding=4), expected)
    read_only = strided.copy()
    read_only.flags.writeable = False
    assert np.array_equal(crops_of(read_only, boxes, 32, padding=4), expected)


@pytest.mark.parametrize(
    ("box", "options", "message"),
    [
        ((5, 5, 5, 9), {}, r"box 1 is \(5.0, 5.0, 5.0, 9.0\); expected finite x1 < x2"),
        ((5, 9, 8, 7), {}, "box 1 is"),
        ((5, 5, np.nan, 9), {}, "box 1 is"),
        ((5, 5, np.inf, 9), {}, "box 1 is"),
        ((5, 5, 8, 9), {"padding": 16}, "context padding 16 does not fit a crop of 32 pixels; use 0 to 15"),
        ((5, 5, 8, 9), {"padding": -1}, "context padding -1"),
        ((5, 5, 8, 9), {"mode": "tight"}, "crop mode 'tight' is unknown; use 'warp' or 'square'"),
    ],
)
def test_bad_input(box, options, message):
    with pytest.raises(PipelineError, match=message):
        crops_of(make_image(40, 50), [(0, 0, 9, 9), box], 32, **{"padding": 4, **options})


@pytest.mark.parametrize(
    "out", [np.empty((2, 8, 8, 3), np.float32), np.empty((1, 8, 9, 3), np.float32), np.empty((1, 8, 8, 3)),
            np.empty((1, 3, 8, 8), np.float32).transpose(0, 2, 3, 1)],
)
def test_batch_of_another_layout(out):
    with pytest.raises(ValueError, match="expected contiguous float32"):
        warp(make_image(9, 9), np.array([[0, 0, 4, 4]]), out, MEAN, STD, padding=0)


@pytest.mark.parametrize("image", [np.zeros((9, 9, 3)), np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8)])
def test_image_of_another_layout(image):
    with pytest.raises(ValueError, match="expected uint8"):
        crops_of(image, [[0, 0, 4, 4]], 8, padding=0)
