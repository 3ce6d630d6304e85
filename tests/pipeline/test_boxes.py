"""Box algebra: hand-worked values, properties, and what the releases compute."""

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.boxes import area, clip, decode, encode, from_inclusive, iou, nms, to_inclusive

NO_BOXES = np.zeros((0, 4), np.float32)


def exclusive(boxes):
    """0-based inclusive corners, as the releases have them, with exclusive right and bottom edges."""
    return boxes + np.array([0, 0, 1, 1], boxes.dtype)


@st.composite
def box_arrays(draw, dtype=np.float64, count=None):
    """Boxes [n x 4] with sides of 1 to 1000 pixels."""
    number = draw(st.integers(0, 8)) if count is None else count
    corner = draw(hnp.arrays(dtype, (number, 2), elements=st.floats(-500, 500, width=32)))
    size = draw(hnp.arrays(dtype, (number, 2), elements=st.floats(1, 1000, width=32)))
    return np.concatenate([corner, corner + size], axis=1)


@pytest.mark.parametrize(("first", "corners"), [(0, [3, 7, 4, 7]), (1, [4, 8, 5, 8])])
def test_inclusive_corners_by_hand(first, corners):
    """A box of the columns 3 and 4 and the row 7, counted from 0."""
    box = np.float32([[3, 7, 5, 8]])
    assert to_inclusive(box, first).tolist() == [corners]
    assert to_inclusive(box, first).dtype == np.float32
    assert from_inclusive(np.array([corners], np.float64), first).tolist() == box.tolist()


def test_area_counts_pixels_and_is_zero_for_reversed_boxes():
    boxes = np.array([[3, 4, 5, 9], [0, 0, 0.5, 0.5], [2, 2, 2, 7], [5, 5, 3, 3]])
    np.testing.assert_array_equal(area(boxes), [10, 0.25, 0, 0])


def test_iou_by_hand():
    first = np.array([[0, 0, 2, 2], [10, 10, 10, 10]], np.float32)
    second = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 4, 2], [0, 0, 4, 4], [10, 10, 10, 10]], np.float32)
    np.testing.assert_allclose(iou(first, second), [[1, 2 / 6, 0, 4 / 16, 0], [0, 0, 0, 0, 0]], rtol=1e-15)
    assert iou(first, NO_BOXES).shape == (2, 0)
    assert iou(NO_BOXES, first).shape == (0, 2)


@given(box_arrays(), box_arrays())
def test_iou_is_symmetric_and_a_share(first, second):
    shares = iou(first, second)
    np.testing.assert_array_equal(shares, iou(second, first).T)
    assert ((shares >= 0) & (shares <= 1)).all()
    np.testing.assert_allclose(np.diag(iou(first, first)), 1)


@given(box_arrays(), box_arrays())
def test_iou_is_that_of_one_pair_at_a_time(first, second):
    def overlap(a, b):
        width, height = max(0, min(a[2], b[2]) - max(a[0], b[0])), max(0, min(a[3], b[3]) - max(a[1], b[1]))
        both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
        return width * height / both

    expected = np.array([[overlap(a, b) for b in second] for a in first]).reshape(len(first), len(second))
    np.testing.assert_allclose(iou(first, second), expected, rtol=1e-12)


def test_clip_by_hand():
    boxes = np.array([[-3, -2, 5, 6], [90, 40, 130, 60], [200, 200, 210, 210]], np.float32)
    clipped = clip(boxes, height=50, width=100)
    np.testing.assert_array_equal(clipped, [[0, 0, 5, 6], [90, 40, 100, 50], [100, 50, 100, 50]])
    assert clipped.dtype == np.float32
    assert clip(NO_BOXES, 50, 100).shape == (0, 4)


def test_clip_takes_boxes_of_every_class():
    boxes = np.array([[[-1, -1, 3, 3], [1, 1, 9, 9]]], np.float64)
    np.testing.assert_array_equal(clip(boxes, height=4, width=5), [[[0, 0, 3, 3], [1, 1, 5, 4]]])


def test_nms_by_hand():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [0, 0, 10, 4]], np.float32)
    scores = np.array([0.5, 0.9, 0.1, 0.3])
    np.testing.assert_array_equal(nms(boxes, scores, 0.5), [1, 3, 2])  # IoU of 0 and 1 is 0.9, of 1 and 3 is 4 / 9
    np.testing.assert_array_equal(nms(boxes, scores, 0.4), [1, 2])
    np.testing.assert_array_equal(nms(boxes, scores, 0.95), [1, 0, 3, 2])
    assert nms(NO_BOXES, np.zeros(0), 0.5).tolist() == []
    assert nms(boxes[:1], scores[:1], 0.5).tolist() == [0]


def test_nms_keeps_the_first_of_equal_scores():
    boxes = np.tile(np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32), (20, 1))
    assert nms(boxes, np.ones(40), 0.5).tolist() == [0, 1]


@given(box_arrays(), st.floats(0, 1), st.randoms())
def test_nms_is_the_greedy_procedure(boxes, threshold, random):
    scores = np.array([random.choice([0.1, 0.5, 0.9]) for _ in boxes])
    remaining, expected = sorted(range(len(boxes)), key=lambda index: -scores[index]), []
    while remaining:
        best, *rest = remaining
        expected.append(best)
        remaining = [index for index in rest if iou(boxes[[best]], boxes[[index]])[0, 0] <= threshold]
    assert nms(boxes, scores, threshold).tolist() == expected


@given(box_arrays(), st.floats(0, 1), st.integers(0, 10))
def test_nms_with_a_limit_keeps_the_first_of_those_kept_without(boxes, threshold, limit):
    scores = np.random.default_rng(len(boxes)).permutation(len(boxes))
    assert nms(boxes, scores, threshold, limit).tolist() == nms(boxes, scores, threshold)[:limit].tolist()


@st.composite
def flat_boxes(draw):
    """Boxes on a small grid, of which some are the same, touch, or have no area."""
    number = draw(st.integers(0, 40))
    corner = draw(hnp.arrays(np.float64, (number, 2), elements=st.integers(0, 10)))
    size = draw(hnp.arrays(np.float64, (number, 2), elements=st.integers(0, 10)))
    return np.concatenate([corner, corner + size], axis=1)


@given(flat_boxes(), st.sampled_from([0.0, 0.1, 0.3, 1 / 3, 0.5, 0.6, 0.7, 0.9, 1.0]), st.randoms())
def test_nms_is_that_of_torchvision(boxes, threshold, random):
    """IoUs that equal the threshold among them, such as 5 / 10 and 7 / 10."""
    scores = np.array(random.sample(range(len(boxes)), len(boxes)), np.float64)
    expected = torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
    assert nms(boxes, scores, threshold).tolist() == expected.tolist()


@pytest.mark.parametrize("count", [63, 64, 65, 200])
def test_nms_of_many_boxes_is_that_of_torchvision(count):
    """More are kept than the compiled code compares at once."""
    rng = np.random.default_rng(count)
    corner = rng.uniform(0, 100, (20 * count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 30, corner.shape)], axis=1).astype(np.float32)
    scores = rng.permutation(len(boxes)).astype(np.float64)
    expected = torchvision.ops.nms(torch.from_numpy(boxes).double(), torch.from_numpy(scores), 0.7)
    assert len(expected) > 2 * count
    for limit in (None, count, len(expected), len(boxes)):
        assert nms(boxes, scores, 0.7, limit).tolist() == expected[:limit].tolist()


@pytest.mark.parametrize(("shared", "threshold"), [(part, part / 10) for part in range(1, 10)])
def test_nms_keeps_tenths_at_exactly_the_threshold(shared, threshold):
    """In float64 the quotient of whole numbers is the number nearest to it, as is the threshold."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, shared]])
    assert nms(boxes, np.array([2, 1]), threshold).tolist() == [0, 1]
    assert nms(boxes, np.array([2, 1]), np.nextafter(threshold, 0)).tolist() == [0]


def test_nms_of_boxes_without_area_keeps_them_all():
    boxes = np.array([[0, 0, 10, 10], [3, 3, 3, 3], [3, 3, 3, 3], [3, 3, 3, 8], [9, 9, 5, 5]])
    assert nms(boxes, np.arange(5, 0, -1), 0.0).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("percent", [30, 50, 70])
def test_nms_keeps_what_the_release_keeps(oracle, percent):
    data = oracle("nms.npz")
    np.testing.assert_array_equal(nms(exclusive(data["boxes"]), data["scores"], percent / 100), data[f"keep_{percent}"])


def test_nms_keeps_boxes_at_exactly_the_threshold(oracle):
    data = oracle("nms.npz")
    np.testing.assert_array_equal(nms(exclusive(data["tie_boxes"]), data["tie_scores"], 0.5), data["tie_keep_50"])


def test_encode_by_hand():
    box = np.array([[10, 20, 30, 60]], np.float64)  # centre (20, 40), 20 x 40
    target = np.array([[20, 10, 60, 30]], np.float64)  # centre (40, 20), 40 x 20
    np.testing.assert_allclose(encode(box, target), [[1, -0.5, np.log(2), -np.log(2)]], rtol=1e-15)
    np.testing.assert_array_equal(encode(box, box), [[0, 0, 0, 0]])


def test_decode_by_hand():
    box = np.array([[10, 20, 30, 60]], np.float64)
    np.testing.assert_allclose(decode(box, np.array([[1, -0.5, np.log(2), -np.log(2)]])), [[20, 10, 60, 30]], rtol=1e-14)
    np.testing.assert_array_equal(decode(box, np.zeros((1, 4))), box)
    assert decode(NO_BOXES, NO_BOXES).shape == encode(NO_BOXES, NO_BOXES).shape == (0, 4)


@given(box_arrays(count=5), box_arrays(count=5))
def test_decode_undoes_encode(boxes, targets):
    np.testing.assert_allclose(decode(boxes, encode(boxes, targets)), targets, atol=1e-6)


@given(box_arrays(count=5), hnp.arrays(np.float64, (5, 4), elements=st.floats(-2, 2)))
def test_encode_undoes_decode(boxes, deltas):
    np.testing.assert_allclose(encode(boxes, decode(boxes, deltas)), deltas, atol=1e-9)


def test_encode_and_decode_are_those_of_the_release(oracle):
    data = oracle("bbox_transform.npz")
    boxes, targets = exclusive(data["ex_boxes"]), exclusive(data["gt_boxes"])
    np.testing.assert_allclose(encode(boxes, targets), data["targets"], atol=1e-9)
    # The release's decoder returns exclusive edges (and calls them inclusive).
    np.testing.assert_allclose(decode(boxes, data["targets"]), data["roundtrip"], atol=1e-9)
    for start in range(0, 16, 4):
        deltas = data["deltas"][:, start:start + 4]
        expected = data["decoded"][:, start:start + 4]
        np.testing.assert_allclose(decode(boxes, deltas.astype(np.float64)), expected, rtol=1e-9, atol=1e-9)
        single = decode(boxes.astype(np.float32), deltas)
        np.testing.assert_allclose(single, data["decoded_float32"][:, start:start + 4], atol=2e-3)
        assert single.dtype == np.float32


def test_clip_is_that_of_the_release_up_to_its_inclusive_edges(oracle):
    data = oracle("bbox_transform.npz")
    height, width = data["image_shape"]
    clipped = clip(data["decoded"].reshape(-1, 4, 4), height - 1, width - 1)
    np.testing.assert_allclose(clipped.reshape(-1, 16), data["clipped"], atol=1e-9)
