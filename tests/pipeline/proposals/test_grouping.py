import numpy as np
import pytest

from pipeline.proposals.grouping import COLOUR, FILL, SIZE, TEXTURE, group, similarities
from pipeline.proposals.regions import describe_regions, pixel_bins
from pipeline.proposals.segmentation import segment
from tests.pipeline.proposals import reference
from tests.pipeline.proposals.test_segmentation import draw_image

COMBINATIONS = [
    (COLOUR, TEXTURE, SIZE, FILL), (TEXTURE, SIZE, FILL), (COLOUR, SIZE, FILL), (COLOUR,), (TEXTURE,), (SIZE,), (FILL,),
]


def boxes_of(labels: np.ndarray, channels: np.ndarray, chosen: tuple[int, ...]) -> np.ndarray:
    regions = describe_regions(labels, pixel_bins(channels))
    return group(regions, similarities(regions, labels.size), chosen, labels.size)


@pytest.fixture(scope="module", params=[(1, 24, 31), (3, 29, 22)])
def picture(request):
    """Channels and their segmentation in some 20 regions."""
    channels = draw_image(*request.param)
    labels = segment(channels, 20, min_size=8)
    assert 10 < labels.max() < 40
    return channels, labels


def test_similarities_agree_with_slow_ones(picture):
    channels, labels = picture
    regions = describe_regions(labels, pixel_bins(channels))
    colours, textures = reference.pixel_histograms(channels)
    similarity = similarities(regions, labels.size)
    expected = [reference.similarity(labels == a, labels == b, colours, textures) for a, b in regions.pairs]
    assert similarity.tolist() == expected  # to the last bit
    assert similarity.min() >= 0
    assert similarity.max() <= 1


def test_similarities_by_hand():
    """Two regions side by side, 6 and 3 pixels of 12, in the colours 0 and 200, a row of a third one below."""
    labels = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 1], [2, 2, 2]], np.int32)
    channels = np.array([[[0, 0, 200]] * 3 + [[0, 0, 0]]], np.uint8)
    channels[0, 0, 0] = 200
    regions = describe_regions(labels, pixel_bins(channels))
    similarity = {tuple(pair): row for pair, row in zip(regions.pairs.tolist(), similarities(regions, 12).tolist(), strict=True)}
    assert similarity[0, 1][COLOUR] == 1 / 6  # one of six pixels is as bright as all three
    assert similarity[0, 2][COLOUR] == 5 / 6
    assert similarity[1, 2][COLOUR] == 0
    assert [similarity[pair][SIZE] for pair in ((0, 1), (0, 2), (1, 2))] == [1 - 9 / 12, 1 - 9 / 12, 1 - 6 / 12]
    # The boxes around both: 3 x 3, 3 x 4 and 3 x 4.
    assert [similarity[pair][FILL] for pair in ((0, 1), (0, 2), (1, 2))] == [1, 1 - 3 / 12, 1 - 6 / 12]


def test_flat_regions_have_the_same_texture():
    labels = np.repeat(np.int32([[0, 1]]), 20, axis=1).repeat(30, axis=0)
    channels = np.full((1, 30, 40), 77, np.uint8)
    assert similarities(describe_regions(labels, pixel_bins(channels)), 1200)[0, TEXTURE] == 1


@pytest.mark.parametrize("chosen", COMBINATIONS)
def test_grouping_agrees_with_a_slow_one(picture, chosen):
    channels, labels = picture
    assert boxes_of(labels, channels, chosen).tolist() == [list(box) for box in reference.group(labels, channels, chosen)]


@pytest.mark.parametrize("chosen", [(TEXTURE,), (SIZE,)])
def test_pairs_of_equal_similarity_join_in_the_order_of_their_numbers(chosen):
    labels = np.arange(36, dtype=np.int32).reshape(6, 6)
    channels = np.full((1, 6, 6), 9, np.uint8)
    assert boxes_of(labels, channels, chosen).tolist() == [list(box) for box in reference.group(labels, channels, chosen)]


def test_grouping_by_hand():
    """Size alone: the smallest two neighbours first; of equal pairs, those of the lowest numbers."""
    labels = np.array([[0, 0, 0, 1, 2, 2, 3]], np.int32)
    boxes = boxes_of(labels, np.zeros((1, 1, 7), np.uint8), (SIZE,))
    # 1 + 2 and 2 + 3 have 3 pixels: 1 + 2 first. Then 4 with 3 (4 pixels), then all.
    assert boxes[:, [0, 2]].tolist() == [[0, 3], [3, 4], [4, 6], [6, 7], [3, 6], [3, 7], [0, 7]]


@pytest.mark.parametrize("chosen", COMBINATIONS)
@pytest.mark.parametrize("k", [15, 200])
def test_every_merged_box_is_the_union_of_two_and_the_last_is_the_image(chosen, k):
    channels = draw_image(3, 60, 80, seed=3)
    labels = segment(channels, k)
    boxes = boxes_of(labels, channels, chosen)
    count = labels.max() + 1
    assert boxes.shape == (2 * count - 1, 4)
    assert boxes[-1].tolist() == [0, 0, 80, 60]
    for merged in range(count, len(boxes)):
        before = boxes[:merged]
        low, high = np.minimum(before[:, None, :2], before[None, :, :2]), np.maximum(before[:, None, 2:], before[None, :, 2:])
        unions = np.concatenate([low, high], axis=2)
        unions[np.arange(merged), np.arange(merged)] = -1  # not with itself
        assert (unions == boxes[merged]).all(axis=2).any()


def test_a_single_region_is_the_whole_hierarchy():
    labels = np.zeros((4, 6), np.int32)
    assert boxes_of(labels, np.zeros((3, 4, 6), np.uint8), COMBINATIONS[0]).tolist() == [[0, 0, 6, 4]]


def test_a_region_with_very_many_neighbours():
    """A comb: one region touches 300 others, so that the list of candidates grows beyond its first length."""
    labels = np.zeros((600, 9), np.int32)
    labels[1::2, 1:] = np.arange(1, 301)[:, None]
    boxes = boxes_of(labels, draw_image(3, 600, 9), COMBINATIONS[0])
    assert boxes.shape == (601, 4)
    assert boxes[-1].tolist() == [0, 0, 9, 600]


def test_grouping_leaves_its_input_alone(picture):
    channels, labels = picture
    regions = describe_regions(labels, pixel_bins(channels))
    similarity = similarities(regions, labels.size)
    before = [array.copy() for array in (*regions, similarity)]
    first = group(regions, similarity, COMBINATIONS[0], labels.size)
    assert all(np.array_equal(*pair) for pair in zip(before, (*regions, similarity), strict=True))
    assert np.array_equal(first, group(regions, similarity, COMBINATIONS[0], labels.size))
