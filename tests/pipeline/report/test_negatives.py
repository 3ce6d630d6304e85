import numpy as np

from pipeline.report.negatives import hardest_negatives


def test_best_scored_below_the_overlap_one_an_image(make_store, svms):
    """Image 0: 5 lies on an a, 4 is an object of b; image 2 has no regions."""
    store = make_store(("a", "b"), [
        ([[5, -5], [4, -4], [3, -3]], [[0.3, 0], [0.1, 1], [0, 0]], [-1, 1, -1]),
        ([[1, -1], [2, -2]], [[0, 0], [0, 0.25]], [-1, -1]), ([], [], []), ([[6, -6]], [[0, 0]], [-1]),
    ])
    first, second = hardest_negatives(store, svms, 0.3, 2)
    assert [(negative.image, negative.box[0], negative.score, negative.nearest) for negative in first] == [
        ("3.jpg", 0, 6, None), ("0.jpg", 1, 4, "b"),
    ]
    assert first[1].overlap == np.float32(0.1)
    assert first[1].nearest_overlap == 1
    assert [(negative.image, negative.score) for negative in second] == [("1.jpg", -1), ("0.jpg", -3)]


def test_images_without_negatives_give_none(make_store, svms):
    first, second = hardest_negatives(make_store(("a", "b"), [([[1, 1]], [[1, 0]], [-1])]), svms, 0.3, 2)
    assert first == []
    assert len(second) == 1


def test_regions_on_those_to_ignore_are_no_negatives(make_store, svms):
    first, second = hardest_negatives(make_store(("a", "b"), [([[5, 5], [1, 2]], [[-1, -1], [0, 0]], [-1, -1])]), svms, 0.3, 2)
    assert [(negative.box[0], negative.score) for negative in (*first, *second)] == [(1, 1), (1, 2)]
