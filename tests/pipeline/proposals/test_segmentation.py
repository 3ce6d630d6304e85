import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter, label

from pipeline.errors import PipelineError
from pipeline.proposals.segmentation import COLOUR_BITS, TAP_BITS, _smooth, gaussian_taps, join_edges, segment, sort_edges
from tests.pipeline.proposals import reference


def row(*values: int) -> np.ndarray:
    return np.array([[values]], np.uint8)


def draw_image(channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth shapes of random colours, with noise."""
    generator = np.random.default_rng(seed)
    shapes = gaussian_filter(generator.random((channels, height, width)), (0, 2, 2)) > 0.5
    return (shapes * 90 + generator.integers(0, 90, shapes.shape)).astype(np.uint8)


@pytest.mark.parametrize(("k", "expected"), [
    # 10 | 10 joins first, of limit k / 2. The 0 joins it, at weight 10, if k / 2 >= 10; then the limit is 10 + k / 3. The 40
    # joins these, at weight 30, if that is >= 30.
    (19, [0, 1, 1, 2]), (20, [0, 0, 0, 1]), (59, [0, 0, 0, 1]), (60, [0, 0, 0, 0]),
])
def test_regions_join_by_hand(k, expected):
    assert segment(row(0, 10, 10, 40), k, sigma=0, min_size=0).tolist() == [expected]


@pytest.mark.parametrize(("min_size", "expected"), [
    (1, [0, 0, 0, 1, 1, 2]),
    (2, [0, 0, 0, 1, 1, 1]),
    # Of the two edges of weight 100 the left one comes first, and joins the middle, which is too small, to the left.
    (3, [0, 0, 0, 0, 0, 0]),
])
def test_small_regions_join_by_hand(min_size, expected):
    assert segment(row(0, 0, 0, 100, 100, 200), 1, sigma=0, min_size=min_size).tolist() == [expected]


def test_the_weight_is_the_distance_of_the_colours():
    # Differences 3, 4 and 12: a distance of 13.
    pair = np.array([[[0, 3]], [[0, 4]], [[0, 12]]], np.uint8)
    assert segment(pair, 12.99, sigma=0, min_size=0).tolist() == [[0, 1]]
    assert segment(pair, 13, sigma=0, min_size=0).tolist() == [[0, 0]]


@pytest.mark.parametrize(("first", "second"), [((0, 0), (0, 1)), ((0, 0), (1, 0)), ((0, 0), (1, 1)), ((1, 0), (0, 1))])
def test_all_eight_neighbours_are_joined(first, second):
    image = np.array([[[0, 80], [160, 240]]], np.uint8)
    image[0][first] = image[0][second] = 40
    labels = segment(image, 1, sigma=0, min_size=0)
    assert labels[first] == labels[second]
    assert labels.max() == 2


@settings(deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)), elements=st.sampled_from([0, 1, 9, 60])),
    st.sampled_from([0, 1, 7.5, 50, 300]), st.sampled_from([0, 0.8]), st.integers(0, 6),
)
def test_agrees_with_a_slow_version(image, k, sigma, min_size):
    assert segment(image, k, sigma, min_size).tolist() == reference.segment(image, k, sigma, min_size).tolist()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("k", [20, 60])
def test_agrees_with_a_slow_version_on_a_picture(channels, k):
    image = draw_image(channels, 37, 41)
    labels = segment(image, k)
    assert 3 < labels.max() < 200
    assert labels.tolist() == reference.segment(image, k, 0.8, k).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_without_rounding_the_regions_of_clear_shapes_are_the_same(seed):
    """The plain float64 procedure differs where weights nearly tie, as they do in photographs; not in a patchwork."""
    colours = np.random.default_rng(seed).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    image = colours.repeat(10, axis=1).repeat(10, axis=2)
    assert segment(image, 50).tolist() == reference.segment(image, 50, 0.8, 50, exact=False).tolist()


@settings(deadline=None)
@given(arrays(np.uint8, st.tuples(st.just(2), st.integers(1, 12), st.integers(1, 12))), st.integers(0, 90), st.integers(0, 9))
def test_regions_are_whole_numbered_in_order_and_not_too_small(image, k, min_size):
    labels = segment(image, k, 0.8, min_size)
    assert labels.dtype == np.int32
    numbers, first, size = np.unique(labels, return_index=True, return_counts=True)
    assert numbers.tolist() == list(range(len(numbers)))
    assert (np.diff(first) > 0).all()
    assert (size >= min(min_size, labels.size)).all()
    assert all(label(labels == number, np.ones((3, 3)))[1] == 1 for number in numbers)


def test_edges_are_sorted_and_shared():
    image = draw_image(3, 20, 30)
    edges = sort_edges(image)
    assert len(edges.packed) == 4 * 20 * 30 - 3 * (20 + 30) + 2
    assert (np.diff(edges.packed >> np.uint64(32)).astype(np.int64) >= 0).all()
    assert len(np.unique(edges.packed & np.uint64(0xFFFFFFFF))) == len(edges.packed)
    before = edges.packed.copy()
    for k in (10, 40):
        assert np.array_equal(join_edges(edges, k), segment(image, k))
    assert np.array_equal(edges.packed, before)


def test_the_smallest_region_has_k_pixels_by_default():
    image = draw_image(3, 40, 40)
    assert np.array_equal(segment(image, 25), segment(image, 25, min_size=25))
    assert segment(image, 25, min_size=1).max() > segment(image, 25).max()


@pytest.mark.parametrize("sigma", [0.5, 0.8, 3])
def test_smoothing_is_gaussian(sigma):
    channel = draw_image(1, 30, 40)[0]
    smoothed = _smooth(channel, gaussian_taps(sigma)) / 2**COLOUR_BITS
    expected = gaussian_filter(channel.astype(float), sigma, mode="nearest", truncate=6)
    # Half a step of rounding, and what the rounding of the taps adds.
    assert abs(smoothed - expected).max() < 0.5 / 2**COLOUR_BITS + 0.06


def test_taps_sum_to_one_and_are_even():
    taps = gaussian_taps(0.8)
    assert taps.sum() == 2**TAP_BITS
    assert taps.tolist() == taps[::-1].tolist()
    assert gaussian_taps(0).tolist() == [2**TAP_BITS]


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (30, 50)])
def test_a_constant_image_is_one_region(shape, value):
    assert not segment(np.full((3, *shape), value, np.uint8), 50).any()


@pytest.mark.parametrize(("image", "settings", "message"), [
    (np.zeros((4, 5), np.uint8), {}, r"not uint8 \[4, 5\]"),
    (np.zeros((3, 4, 5)), {}, r"not float64 \[3, 4, 5\]"),
    (np.zeros((4, 4, 5), np.uint8), {}, r"1 to 3 channels .* not uint8 \[4, 4, 5\]"),
    (np.zeros((3, 0, 5), np.uint8), {}, r"not uint8 \[3, 0, 5\]"),
    (np.zeros((3, 4, 5), np.uint8), {"sigma": -1}, "sigma is -1"),
    (np.zeros((3, 4, 5), np.uint8), {"k": -1}, "k is -1"),
    (np.zeros((3, 4, 5), np.uint8), {"min_size": -1}, "min_size -1"),
])
def test_bad_input_is_named(image, settings, message):
    with pytest.raises(PipelineError, match=message):
        segment(image, **{"k": 50, **settings})
