"""The searches over stores: nearest regions, units, hardest regions, and the regions of an image."""

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.explorer.hardest import hardest_regions
from pipeline.explorer.kept_store import KeptStore, Room
from pipeline.explorer.nearest import COSINE, L2, distances, nearest_regions
from pipeline.explorer.ranking import Found, Ranking
from pipeline.explorer.regions import Filter, description, image_regions
from pipeline.explorer.units import strongest_regions


def places(regions):
    return [(region.store, region.image, region.row) for region in regions]


def unlabelled(*features):
    """An image of proposals that overlap nothing."""
    return features, [[0]] * len(features), [-1] * len(features)


class TestRanking:
    def test_the_best_of_each_image(self):
        ranking = Ranking(2)
        ranking.add(0, 0, np.array([3.0, 5.0]), np.array([7, 8]))
        ranking.add(0, 1, np.array([]), np.array([]))
        ranking.add(0, 2, np.array([5.0, 4.0]), np.array([0, 1]))
        ranking.add(1, 0, np.array([4.5]), np.array([9]))
        assert ranking.best() == [Found(0, 0, 8, 5.0), Found(0, 2, 0, 5.0)]  # of equal ones the first comes first

    def test_several_of_an_image(self):
        ranking = Ranking(3, one_per_image=False)
        ranking.add(0, 0, np.array([1.0, 4.0]), np.array([0, 1]))
        ranking.add(0, 1, np.array([3.0, 2.0, 2.0]), np.array([0, 1, 2]))
        assert places(ranking.best()) == [(0, 0, 1), (0, 1, 0), (0, 1, 1)]


class TestNearest:
    def test_distances_by_hand(self):
        rows = np.array([[3, 4], [0, 0], [-4, 3], [6, 8]], np.float16)
        query = np.array([3, 4], np.float16)
        assert distances(rows, query, L2) == pytest.approx([0, 5, 50**0.5, 5])
        assert distances(rows, query, COSINE) == pytest.approx([0, 1, 1, 0], abs=1e-6)
        assert rows[0].tolist() == [3, 4], "the features given are left as they are"

    def test_rows_that_are_nearly_equal_keep_their_order(self):
        """1000 and 1000.5: the squares' difference is lost in float32, that of the values is not."""
        rows = np.full((2, 4096), 1000, np.float16)
        rows[0, 0] = 1000.5
        assert distances(rows, rows[1], L2).tolist() == [0.5, 0]

    @pytest.mark.parametrize("measure", [L2, COSINE])
    def test_the_same_as_sorting_everything(self, make_store, measure):
        rng = np.random.default_rng(0)
        images = [unlabelled(*rng.random((6, 5))) for _ in range(12)]
        stores = [make_store(("a",), images[:7]), make_store(("a",), images[7:])]
        query = rng.random(5).astype(np.float16)
        rows = np.array([features for features, *_ in images], np.float16).astype(float)
        wanted = query.astype(float)
        every = np.linalg.norm(rows - wanted, axis=2)
        if measure == COSINE:
            every = 1 - rows @ wanted / (np.linalg.norm(rows, axis=2) * np.linalg.norm(wanted))
        best = np.argsort(every.min(axis=1))[:5].tolist()
        regions = nearest_regions(stores, query, measure, 5)
        assert places(regions) == [(image // 7, image % 7, int(every[image].argmin())) for image in best]
        assert [region.value for region in regions] == pytest.approx(np.sort(every.min(axis=1))[:5], abs=1e-6)

    def test_the_query_itself_is_left_out(self, make_store):
        store = make_store(("a",), [unlabelled([1, 0], [0, 1], [1, 1]), unlabelled([0, 2])])
        regions = nearest_regions([store], np.array([1, 0], np.float16), L2, 9, leave_out=(0, 0, 0))
        assert places(regions) == [(0, 0, 2), (0, 1, 0)]

    def test_features_of_another_size(self, make_store):
        with pytest.raises(PipelineError, match="2 values in the store, 3 in the query"):
            nearest_regions([make_store(("a",), [unlabelled([1, 0])])], np.zeros(3), L2)


def test_images_stay_in_memory_while_there_is_room(make_store):
    """Room for two of three images, each of two rows of one float16: 4 bytes."""
    store = make_store(("a",), [unlabelled([1], [2]), unlabelled([3], [4]), unlabelled([5], [6])])
    kept = KeptStore(store, Room(9e-9))
    first = [kept.features(image) for image in range(3)]
    assert [kept.features(image) is first[image] for image in range(3)] == [True, True, False]
    whole = [kept.read(image) for image in range(3)]
    assert [kept.read(image).features is whole[image].features for image in range(3)] == [True, True, False]
    assert [kept.read(image).boxes is whole[image].boxes for image in range(3)] == [True, True, False]
    assert [kept.read(image).features.tolist() for image in range(3)] == [[[1], [2]], [[3], [4]], [[5], [6]]]
    assert kept.read(0, np.array([1])).features.tolist() == [[2]]
    assert (kept.num_images, kept.image_ids) == (3, store.image_ids)


def test_units_rank_proposals_with_values_above_zero(make_store):
    store = make_store(("a",), [
        ([[9, 1], [2, 0], [3, 0]], [[1], [0], [0]], [0, -1, -1]), unlabelled([5, 0]), unlabelled([0, 0]),
    ])
    assert strongest_regions([store, store], 0, 3) == [Found(0, 1, 0, 5.0), Found(1, 1, 0, 5.0), Found(0, 0, 2, 3.0)]
    assert strongest_regions([store], 1) == []  # its only value above 0 is an object's, which is no proposal


def test_hardest_regions(make_store, svms):
    """Objects of a by rising score, not those marked difficult; regions off a by falling score, not those to ignore."""
    images = [
        ([[2, 0], [-1, 0], [0.5, 0], [9, 0], [8, 0]], [[1, 0], [1, 0], [0.2, 0], [0.3, 0], [-1, -1]], [0, 0, -1, -1, -1]),
        ([[-3, 0], [1, 0], [7, 5]], [[1, 0], [0, 0], [0, 1]], [0, -1, 1]),
    ]
    hardest = hardest_regions(make_store(("a", "b"), images, difficult={(1, 0)}), svms, 0)
    assert hardest.positives == [Found(0, 0, 1, -1.0), Found(0, 0, 0, 2.0)]
    assert hardest.negatives == [Found(0, 1, 2, 7.0), Found(0, 0, 2, 0.5)]


class TestImageRegions:
    @pytest.fixture
    def store(self, make_store):
        return make_store(("a", "b"), [
            ([[1, 0], [3, 2], [0, 4], [2, -1]], [[1, 0], [0.6, 0.1], [0.2, 0.7], [-1, -1]], [0, -1, -1, -1]),
        ])

    def test_any_class(self, store, svms):
        regions = image_regions(store, 0, svms, Filter())
        assert regions.rows.tolist() == [2, 1, 3, 0]
        assert regions.scores.tolist() == [[0, 4], [3, 2], [2, -1], [1, 0]]

    @pytest.mark.parametrize(("wanted", "rows"), [
        (Filter(label=0), [1, 3, 0, 2]), (Filter(label=0, least_score=1.5), [1, 3]),
        (Filter(label=1, least_overlap=0.1), [2, 1]), (Filter(label=1, most_overlap=0.1), [1, 0, 3]),
        (Filter(least_overlap=1.0), [0]), (Filter(least_score=9), []),
    ])
    def test_filters(self, store, svms, wanted, rows):
        assert image_regions(store, 0, svms, wanted).rows.tolist() == rows

    def test_the_count_is_told(self, store, svms):
        regions = image_regions(store, 0, svms, Filter(count=1))
        assert (regions.rows.tolist(), regions.passed) == ([2], 4)

    def test_without_svms_by_overlap(self, store):
        regions = image_regions(store, 0, None, Filter(least_score=9))
        assert (regions.rows.tolist(), regions.scores) == ([0, 2, 1, 3], None)

    def test_description(self, store):
        annotations = store.annotations(0)
        assert description(annotations, 0, store.classes)["object"] == "a"
        without_object = description(annotations, 2, store.classes)
        assert (without_object["object"], without_object["nearest"], without_object["box"]) == (None, "b", [2, 0, 3, 1])
        assert description(annotations, 3, store.classes)["nearest"] is None
