import numpy as np

from pipeline.report.units import TopRegions, choose_units, top_regions, unit_record


def test_the_best_region_of_each_image_of_the_best_images(make_store):
    """Ground truth (the first row of image 0) takes no part; of image 2 only one region; image 1 has none."""
    store = make_store(("a",), [
        ([[9, 9], [1, 2], [3, 0]], [[1], [0.5], [0.25]], [0, -1, -1]), ([[9, 9]], [[1]], [0]),
        ([[5, 4], [4, 5]], [[0], [0.75]], [-1, -1]), ([[2, 1]], [[0.125]], [-1]),
    ])
    top = top_regions(store, 2)
    assert top.activations.tolist() == [[5, 5], [3, 2]]
    assert top.images.tolist() == [[2, 2], [0, 0]]
    assert top.boxes[..., 0].tolist() == [[0, 1], [2, 1]]
    assert top.overlaps[..., 0].tolist() == [[0, 0.75], [0.25, 0.5]]
    assert unit_record(top, store, 0, 1) == {"unit": 1, "class": "a", "covering": 2, "regions": [
        {"image": "2.jpg", "box": [1, 0, 2, 1], "activation": 5, "overlap": 0.75},
        {"image": "0.jpg", "box": [1, 0, 2, 1], "activation": 2, "overlap": 0.5},
    ]}


def test_regions_on_those_to_ignore_overlap_nothing(make_store):
    """They excite units as any region does; -1 in the store is no overlap."""
    top = top_regions(make_store(("a",), [([[4]], [[-1]], [-1]), ([[1]], [[0.5]], [-1])]), 2)
    assert top.activations.tolist() == [[4], [1]]
    assert top.overlaps.tolist() == [[[0]], [[0.5]]]


def test_the_same_as_sorting_everything(make_store):
    rng = np.random.default_rng(0)
    images = [(rng.random((9, 7)), rng.random((9, 2)), np.full(9, -1)) for _ in range(20)]
    top = top_regions(make_store(("a", "b"), images), 5)
    best = np.array([np.float16(features).max(axis=0) for features, *_ in images])
    assert (top.activations == -np.sort(-best, axis=0)[:5]).all()
    assert (top.images == np.argsort(-best, axis=0)[:5]).all()


def test_fewer_images_than_regions(make_store):
    store = make_store(("a",), [([[1, 0]], [[1]], [-1])])
    top = top_regions(store, 3)
    assert len(unit_record(top, store, 0, 0)["regions"]) == 1
    assert unit_record(top, store, 0, 1)["regions"] == []  # a unit that nothing excites
    assert choose_units(top, 8) == [(0, 0)]


def make_top(overlaps):
    overlaps = np.array(overlaps, float)
    size = overlaps.shape[:2]
    return TopRegions(np.ones(size), np.zeros(size, int), np.zeros((*size, 4)), overlaps)


def test_each_class_has_a_unit_of_its_own():
    """[K x D x C]: unit 0 covers a twice and b twice, unit 1 a twice by more, unit 2 nothing: a has 1, b has 0, c none."""
    top = make_top([[[0.6, 0.6, 0], [0.9, 0, 0], [0.4, 0, 0.4]], [[0.6, 0.6, 0], [0.9, 0, 0], [0.4, 0, 0.4]]])
    assert choose_units(top, 8) == [(0, 1), (1, 0)]
    assert choose_units(top, 1) == [(0, 1)]
    assert choose_units(make_top([[[0.9], [0.5]], [[0.4], [0.5]]]), 8) == [(0, 1)]  # an IoU of 0.5 covers, and twice is more
    single = make_top([[[0.9, 0.9]]])
    assert choose_units(single, 8) == [(0, 0)]  # no second unit is left for b
