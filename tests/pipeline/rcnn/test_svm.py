import dataclasses
import itertools

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from pipeline.errors import PipelineError
from pipeline.rcnn import svm
from pipeline.rcnn.shared_rows import SharedRows
from pipeline.rcnn.svm import LinearSVMs, SvmSettings, train_svms

SMALL = SvmSettings(cost=0.01, retrain_limit=15, tolerance=1e-8)


def empty_image(stores, num_features, num_classes=3, dtype=np.float32):
    return stores.make_image(np.zeros((0, num_features), dtype), np.zeros((0, 4)), [], num_classes)


def test_one_svm_matches_the_release(stores, oracle, rng):
    data = oracle("svm.npz")
    is_positive = data["labels"] == 1
    image = {
        "features": data["features"], "boxes": np.zeros((320, 4), np.float32), "overlaps": np.float32(is_positive)[:, None],
        "gt_labels": np.where(is_positive, 0, -1), "difficult": np.zeros(320, bool),
    }
    svms = train_svms(stores.MemoryStore(["class"], [image], 40), 20 / data["feat_norm_mean"], rng)
    (event,) = svms.events
    assert (event["positives"], event["negatives"]) == (56, 264)
    assert event["objective"] == pytest.approx(data["objective_opt"], rel=1e-5)
    np.testing.assert_allclose(svms.score(data["features"])[:, 0], data["decision_opt"], atol=1e-3)


@pytest.mark.parametrize(("tolerance", "closeness"), [(SvmSettings().tolerance, 2e-4), (1e-7, 1e-5)])
def test_hard_negative_mining_matches_the_release(stores, oracle, rng, tolerance, closeness):
    data = oracle("hard_negative_mining.npz")
    svms = train_svms(
        stores.oracle_store(data), 20 / data["feat_norm_mean"], rng, SvmSettings(retrain_limit=200, tolerance=tolerance)
    )
    np.testing.assert_allclose(svms.W, data["W_opt"], atol=closeness)
    np.testing.assert_allclose(svms.B, data["B_opt"], atol=closeness)
    assert svms.W.dtype == svms.B.dtype == np.float32
    columns = ["image", "class", "positives", "negatives", "added", "kept", "evicted"]
    events = np.stack([svms.events[column] for column in columns], axis=1)
    np.testing.assert_array_equal(events, data["events_opt"] - np.array([1, 1, 0, 0, 0, 0, 0]))
    by_class = svms.events[np.argsort(svms.events["class"], kind="stable")]
    np.testing.assert_allclose(by_class["objective"], data["objective_opt"], rtol=1e-5)
    np.testing.assert_array_equal(svms.num_positives, data["num_pos_opt"])
    np.testing.assert_array_equal(svms.num_negatives, data["num_neg_opt"])
    first_rows = np.searchsorted(data["image_index"], np.arange(30))
    rows = first_rows[svms.hard_negatives[:, 1]] + svms.hard_negatives[:, 2]
    np.testing.assert_array_equal(rows, data["neg_rows_opt"])


def train_slowly(store, scale, settings, label):
    """One class after the procedure in words, on dense float64 rows: w, b and the (image, row) left as negatives."""
    positives = [image["features"][row] for image in store.images for row in np.flatnonzero(image["gt_labels"] == label)]
    negatives, added, w, b = {}, 0, None, None
    for number, image in enumerate(store.images):
        for row, features in enumerate(image["features"].astype(np.float64) * scale):
            if image["overlaps"][row, label] < 0.3 and (w is None or features @ w + b > -1.0001):
                negatives[number, row] = features
                added += 1
        if negatives and (w is None or added > settings.retrain_limit or number == store.num_images - 1):
            X = np.array([*(np.float64(row) * scale for row in positives), *negatives.values()])
            svm = LinearSVC(
                loss="hinge", C=settings.cost, class_weight={1: 2}, intercept_scaling=10, tol=1e-10, max_iter=10**6,
                random_state=0,
            ).fit(X, [1] * len(positives) + [-1] * len(negatives))
            w, b, added = svm.coef_[0], svm.intercept_[0], 0
            negatives = {key: features for key, features in negatives.items() if features @ w + b >= -1.2}
    return w, b, list(negatives)


def test_of_negatives_that_repeat_an_earlier_region_none_is_mined(stores, rng):
    """Training goes as without them; a positive counts even if it repeats a region."""
    whole = stores.random_store(rng, images=6)
    fewer = [dict(image) for image in whole.images]
    for image, smaller in zip(whole.images, fewer):
        image["repeated"] = rng.random(len(image["boxes"])) < 0.4
        kept = ~image["repeated"] | (image["gt_labels"] >= 0)
        smaller |= {name: values[kept] for name, values in image.items()}
    svms = train_svms(whole, 3.0, np.random.default_rng(0), SMALL)
    assert not any(whole.images[image]["repeated"][row] for _, image, row in svms.hard_negatives)
    plain = [{**image, "repeated": np.zeros(len(image["boxes"]), bool)} for image in whole.images]
    assert svms.num_negatives.sum() < train_svms(
        stores.MemoryStore(whole.classes, plain, 24), 3.0, np.random.default_rng(0), SMALL
    ).num_negatives.sum()
    for image in fewer:  # an object that repeats a region is no negative of the other classes
        image["repeated"] = image["repeated"] & (image["gt_labels"] >= 0)
    expected = train_svms(stores.MemoryStore(whole.classes, fewer, 24), 3.0, np.random.default_rng(0), SMALL)
    np.testing.assert_array_equal(svms.num_positives, expected.num_positives)
    np.testing.assert_array_equal(svms.num_negatives, expected.num_negatives)
    np.testing.assert_allclose(svms.W, expected.W, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_training_agrees_with_a_slow_version(stores, dtype, rng):
    store = stores.random_store(rng, images=10, dtype=dtype)
    svms = train_svms(store, 3.0, np.random.default_rng(0), SMALL)
    assert len(svms.events) > 2 * 3  # some class was retrained between the first image and the last
    assert svms.events["evicted"].sum() > 0
    for label in range(3):
        w, b, keys = train_slowly(store, 3.0, SMALL, label)
        np.testing.assert_allclose(svms.W[:, label], w, atol=1e-5)
        np.testing.assert_allclose(svms.B[label], b, atol=1e-5)
        mine = svms.hard_negatives[:, 0] == label
        assert [tuple(key) for key in svms.hard_negatives[mine, 1:].tolist()] == keys


def test_same_generator_same_bytes(stores, rng):
    store = stores.random_store(rng)
    first, second = (train_svms(store, 3.0, np.random.default_rng(7), SMALL).to_arrays() for _ in range(2))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_difficult_objects_are_positives(stores, rng):
    store = stores.random_store(rng)
    for image in store.images:
        image["difficult"] = image["gt_labels"] >= 0
    svms = train_svms(store, 3.0, rng, SMALL)
    assert svms.num_positives.sum() == sum((image["gt_labels"] >= 0).sum() for image in store.images)


@pytest.mark.parametrize("position", [0, 4, 8])
def test_an_image_without_boxes_changes_nothing(stores, position, rng):
    store = stores.random_store(rng)
    plain = train_svms(store, 3.0, np.random.default_rng(0), SMALL)
    store.images.insert(position, empty_image(stores, 24))
    store.num_images += 1
    with_empty = train_svms(store, 3.0, np.random.default_rng(0), SMALL)
    np.testing.assert_allclose(with_empty.W, plain.W, atol=1e-6)


def test_a_class_without_negatives_in_the_first_image_is_trained_at_its_first(stores, rng):
    store = stores.random_store(rng)
    store.images[0]["overlaps"][:, 1] = 0.3  # a negative has less
    svms = train_svms(store, 3.0, rng, SMALL)
    assert [svms.events["image"][svms.events["class"] == label][0] for label in range(3)] == [0, 1, 0]
    first = svms.events[(svms.events["class"] == 1)][0]
    assert first["added"] == (store.images[1]["overlaps"][:, 1] < 0.3).sum()


def test_a_class_without_positives_or_negatives_is_an_error(stores, rng):
    store = stores.random_store(rng)
    for image in store.images:
        image["gt_labels"][image["gt_labels"] == 2] = 0
    with pytest.raises(PipelineError, match="class class2: no ground-truth box"):
        train_svms(store, 3.0, rng, SMALL)
    store = stores.random_store(rng)
    for image in store.images:
        image["overlaps"][:, 1] = 0.5
    with pytest.raises(PipelineError, match=r"class class1: no box with IoU < 0\.3"):
        train_svms(store, 3.0, rng, SMALL)


def test_a_solver_that_does_not_converge_is_an_error(stores, rng):
    settings = dataclasses.replace(SMALL, max_iterations=1)
    with pytest.raises(PipelineError, match="class class0: not converged after 1 iterations"):
        train_svms(stores.random_store(rng), 3.0, rng, settings)


@pytest.mark.parametrize("row", [0, 20])
def test_a_feature_that_is_not_finite_is_an_error(stores, row, rng):
    store = stores.random_store(rng)
    store.images[3]["features"][row, 5] = np.nan
    with pytest.raises(PipelineError, match="image 3 of the feature store: a feature is not finite"):
        train_svms(store, 3.0, rng, SMALL)


def test_memory_is_bounded(stores, monkeypatch, rng):
    store, allowed, needed = stores.random_store(rng, images=10, boxes=80), 30e-6, []

    def train_and_measure(cache, rows, *arguments):
        held = [np.concatenate([cache.positives, cache.negatives]) for cache in caches]
        assert rows.held == len(np.unique(np.concatenate(held)))
        needed.append((rows.held * store.images[0]["features"][0].nbytes + svm.EXAMPLE_BYTES * sum(map(len, held))) / 1e9)
        return train(cache, rows, *arguments)

    def gather(*arguments):
        nonlocal caches
        rows, caches = gather_positives(*arguments)
        return rows, caches

    caches, train, gather_positives = [], svm._train, svm._gather_positives
    monkeypatch.setattr(svm, "_train", train_and_measure)
    monkeypatch.setattr(svm, "_gather_positives", gather)
    free = train_svms(store, 3.0, rng, SMALL)
    assert max(needed) > allowed
    needed.clear()
    tight = train_svms(store, 3.0, rng, dataclasses.replace(SMALL, cache_gigabytes=allowed))
    assert 0 < max(needed) < allowed
    assert free.num_crowded_out.sum() == 0 < tight.num_crowded_out.sum()


def test_no_more_rows_are_reserved_than_can_be_held(stores, rng):
    store = stores.random_store(rng, images=5, boxes=40)
    assert svm._capacity(store, 1.0) == 5 * 40 + 5 * 2  # every row, and the two objects of each image once more
    assert svm._capacity(store, 1e-6) == 1000 // 48 + 40  # rows of float16 for which there is room, and one image


def test_the_easiest_negatives_are_crowded_out():
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    rows, cache = SharedRows(10, 2), svm._ClassCache(0, "class")
    places = rows.add(values, np.ones(10, int))
    cache.add_positives(places[9:])
    cache.add_negatives(places[:9], np.array([0.3, -1, 0.2, -0.5, 0, 2, -1, 1, 0.1]), np.arange(18).reshape(9, 2))
    cache.alphas = np.array([9.0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    cache.crowd_out(rows)
    remaining = [0, 2, 3, 4, 5, 7, 8]
    np.testing.assert_array_equal(rows.values[cache.negatives], values[remaining])
    np.testing.assert_array_equal(cache.keys, np.arange(18).reshape(9, 2)[remaining])
    assert cache.scores.tolist() == [0.3, 0.2, -0.5, 0, 2, 1, 0.1]
    assert cache.alphas.tolist() == [9, *remaining]
    assert rows.held == 8
    assert cache.crowded_out == 2


def test_a_training_starts_from_the_last(stores, monkeypatch, rng):
    starts, ends = [], []

    def solve_and_record(*arguments, **settings):
        starts.append(arguments[3])
        ends.append(solve(*arguments, **settings))
        return ends[-1]

    solve = svm.solve
    monkeypatch.setattr(svm, "solve", solve_and_record)
    svms = train_svms(stores.random_store(rng), 3.0, rng, SMALL)
    for label in range(3):
        mine = np.flatnonzero(svms.events["class"] == label)
        assert not starts[mine[0]].any()
        for before, now in itertools.pairwise(mine):
            assert (starts[now] > 0).sum() == (ends[before].alphas > 0).sum()  # what is evicted has none
            np.testing.assert_allclose(starts[now].sum(), ends[before].alphas.sum())


def test_positives_that_fill_the_memory_are_an_error(stores, rng):
    with pytest.raises(PipelineError, match="cache_gigabytes = 1e-06"):
        train_svms(stores.random_store(rng), 3.0, rng, dataclasses.replace(SMALL, cache_gigabytes=1e-6))


def test_progress_sees_every_image_twice_and_features_are_read_once(stores, rng):
    store, seen = stores.random_store(rng, images=5), []

    def progress(items):
        for item in items:
            seen.append(item)
            yield item

    train_svms(store, 3.0, rng, SMALL, progress)
    assert seen == [0, 1, 2, 3, 4] * 2
    assert store.rows_read == 5 * 40 + 5 * 2  # everything once, and the two objects of each image


def test_arrays_round_trip_without_pickle(stores, tmp_path, rng):
    svms = train_svms(stores.random_store(rng), 3.0, rng, SMALL)
    np.savez(tmp_path / "svms.npz", **svms.to_arrays())
    with np.load(tmp_path / "svms.npz", allow_pickle=False) as saved:
        restored = LinearSVMs.from_arrays(dict(saved))
    assert restored.classes == svms.classes == ("class0", "class1", "class2")
    assert restored.scale == 3.0
    np.testing.assert_array_equal(restored.events, svms.events)
    np.testing.assert_array_equal(restored.W, svms.W)
    with pytest.raises(PipelineError, match="saved LinearSVMs: no classes, W, scale"):
        LinearSVMs.from_arrays({"B": svms.B})
