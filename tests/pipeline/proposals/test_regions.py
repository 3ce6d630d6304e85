import numpy as np
import pytest

from pipeline.proposals.regions import BINS, COLOUR_BINS, STRONGEST, TEXTURE_BINS, describe_regions, pixel_bins
from tests.pipeline.proposals import reference
from tests.pipeline.proposals.test_segmentation import draw_image


@pytest.fixture(scope="module", params=[1, 3])
def picture(request):
    """Channels, and labels that have nothing to do with them."""
    channels = draw_image(request.param, 30, 47)
    return channels, (draw_image(1, 30, 47, seed=1)[0] // 20).astype(np.int32)


def test_histograms_boxes_and_sizes_agree_with_slow_ones(picture):
    channels, labels = picture
    regions = describe_regions(labels, pixel_bins(channels))
    colours, textures = reference.pixel_histograms(channels)
    assert len(regions.sizes) == labels.max() + 1
    for number in range(labels.max() + 1):
        mask = labels == number
        assert regions.sizes[number] == mask.sum()
        assert tuple(regions.boxes[number]) == reference.box(mask)
        counts = np.concatenate([np.bincount(plane[mask], minlength=25) for plane in colours])
        assert regions.colours[number].tolist() == counts.tolist()
        counts = np.concatenate([np.bincount(plane[mask], minlength=10) for plane in textures])
        assert regions.textures[number].tolist() == counts.tolist()


def test_neighbours_agree_with_slow_ones(picture):
    channels, labels = picture
    pairs = describe_regions(labels, pixel_bins(channels)).pairs.tolist()
    masks = [labels == number for number in range(labels.max() + 1)]
    expected = [[a, b] for a in range(len(masks)) for b in range(a + 1, len(masks)) if reference.touch(masks[a], masks[b])]
    assert sorted(pairs) == expected


def test_neighbours_share_a_side_not_a_corner():
    labels = np.array([[0, 1], [2, 3]], np.int32)
    regions = describe_regions(labels, pixel_bins(np.zeros((1, 2, 2), np.uint8)))
    assert sorted(regions.pairs.tolist()) == [[0, 1], [0, 2], [1, 3], [2, 3]]


def test_there_may_be_many_neighbours():
    labels = np.arange(60 * 70, dtype=np.int32).reshape(60, 70)
    pairs = describe_regions(labels, pixel_bins(np.zeros((1, 60, 70), np.uint8))).pairs
    assert len(pairs) == 59 * 70 + 60 * 69
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert {*(pairs[:, 1] - pairs[:, 0]).tolist()} == {1, 70}


def test_bins_by_hand():
    """Brightness rises by 8 a pixel to the right: a derivative of 8 there, 8 / sqrt 2 to both diagonals, 0 down."""
    ramp = np.tile(np.arange(0, 240, 8, dtype=np.uint8), (20, 1))[None]
    bins = pixel_bins(ramp).reshape(20, 30, 5)[10, 15].astype(int)
    colour, right, down_right, down, down_left = bins - [0, *(COLOUR_BINS + TEXTURE_BINS - 1 + 19 * np.arange(4))]
    assert colour == 120 * 25 // 256
    assert right == int(8 / STRONGEST * 10)
    assert down_right == int(8 / 2**0.5 / STRONGEST * 10)
    assert down == 0
    assert down_left == -int(8 / 2**0.5 / STRONGEST * 10)


def test_strong_edges_fall_into_the_last_bins():
    step = np.repeat(np.uint8([[[255, 0]]]), 20, axis=2).repeat(9, axis=1)
    bins = pixel_bins(step).reshape(9, 40, 5)[4, 20]
    assert bins[1] == COLOUR_BINS  # -9
    assert pixel_bins(step).max() < BINS
    assert pixel_bins(np.uint8([[[0, 255]]]).repeat(3, axis=0)).max() < 3 * BINS
