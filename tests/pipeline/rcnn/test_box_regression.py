import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.rcnn import box_regression
from pipeline.rcnn.box_regression import (
    BoxRegressors,
    RegressorSettings,
    move_boxes,
    regression_examples,
    release_corners,
    train_box_regressors,
    whitening,
)


def test_examples_and_targets_match_the_release(stores, oracle):
    data = oracle("bbox_regressor.npz")
    store, start, examples = stores.oracle_store(data), 0, []
    for image in store.images:
        rows, labels, targets = regression_examples(image["boxes"], image["gt_labels"], float(data["min_overlap"]))
        examples.append((rows + start, labels + 1, targets))
        start += len(image["boxes"])
    rows, labels, targets = map(np.concatenate, zip(*examples))
    np.testing.assert_array_equal(rows, data["train_rows"])
    np.testing.assert_array_equal(labels, data["train_class"])
    np.testing.assert_allclose(targets, data["targets"], atol=1e-12)


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_regressors_match_the_release(stores, oracle, rng, form):
    data = oracle("bbox_regressor.npz")
    # Features of zeros change nothing, but make D > N, so that the dual form is solved.
    padding = 0 if form == "primal" else 500
    features = np.pad(data["features"], [(0, 0), (0, padding)])
    store = stores.oracle_store({**data, "features": features})
    regressors = train_box_regressors(store, 20 / data["feat_norm_mean"], rng)
    np.testing.assert_array_equal(regressors.num_examples, data["num_examples"])
    np.testing.assert_array_equal(regressors.num_left_out, 0)
    expected = np.insert(data["Beta"], [64] * padding, 0, axis=1)
    for name, values in {**data, "Beta": expected}.items():
        if name in ("mu", "T", "T_inv", "Beta"):
            np.testing.assert_allclose(getattr(regressors, name), values, rtol=0, atol=1e-8 * np.abs(values).max())

    # Exclusive, 0-based corners: x1 and y1 are one less than in the release.
    boxes = data["boxes"][data["test_rows"]] - np.array([1, 1, 0, 0])
    for dtype, tolerance in [(np.float64, 1e-6), (np.float32, 5e-3)]:
        predicted = regressors.predict(features[data["test_rows"]].astype(dtype), boxes)
        np.testing.assert_allclose(predicted + np.array([1, 1, 0, 0]), data["pred_boxes"], rtol=0, atol=tolerance)


@pytest.mark.parametrize(("num_features", "dtype"), [(6, np.float32), (6, np.float16), (200, np.float32), (200, np.float16)])
def test_regressors_agree_with_a_slow_version(stores, num_features, dtype, monkeypatch, rng):
    monkeypatch.setattr(box_regression, "BLOCK", 7)
    store = stores.random_store(rng, images=12, num_features=num_features, dtype=dtype)
    regressors = train_box_regressors(store, 2.0, rng, RegressorSettings(ridge=10.0))
    assert (regressors.num_examples > 7).all()
    for label in range(3):
        X, Y = [], []
        for image in store.images:
            rows, labels, targets = regression_examples(image["boxes"], image["gt_labels"], 0.6)
            X += [[*row, 1.0] for row in 2.0 * image["features"][rows[labels == label]].astype(np.float64)]
            Y += list(targets[labels == label])
        X, Y = np.array(X), (np.array(Y) - regressors.mu[label]) @ regressors.T[label]
        Beta = np.linalg.solve(X.T @ X + 10.0 * np.eye(num_features + 1), X.T @ Y)
        np.testing.assert_allclose(regressors.Beta[label], Beta, atol=1e-10)


def test_widths_are_those_of_inclusive_corners_by_hand():
    # In inclusive corners 0..10 and 2..22: widths 10 and 20, centres 5 and 12. Heights 10 and 10, centres 5 and 5.
    boxes = np.array([[2, 0, 23, 11], [0, 0, 11, 11], [100, 100, 110, 110]])
    rows, labels, targets = regression_examples(boxes, np.array([4, -1, -1]), 0.3)
    np.testing.assert_array_equal(rows, [0, 1])
    np.testing.assert_array_equal(labels, [4, 4])
    np.testing.assert_allclose(targets, [[0, 0, 0, 0], [0.7, 0, np.log(2), 0]], atol=1e-15)
    np.testing.assert_allclose(move_boxes(boxes[[1]], targets[[1]]), boxes[[0]], atol=1e-12)


def test_overlap_must_exceed_the_minimum():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 6]])
    labels = np.array([0, -1])
    assert list(regression_examples(boxes, labels, 0.6)[0]) == [0]
    assert list(regression_examples(boxes, labels, 0.59)[0]) == [0, 1]


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 300)] * 2, *[st.integers(1, 300)] * 2), min_size=2, max_size=2))
def test_moving_inverts_the_targets(corners):
    first, second = (np.array([[x, y, x + width, y + height]], float) for x, y, width, height in corners)
    deltas = box_regression.box_algebra.encode(release_corners(first), release_corners(second))
    # A box of one pixel has (almost) no width between inclusive corners, and its deltas are large.
    np.testing.assert_allclose(move_boxes(first, deltas), second, atol=1e-6)


def test_whitening_decorrelates(rng):
    targets = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) + 3
    mu, T, T_inv = whitening(targets)
    np.testing.assert_allclose(np.cov((targets - mu) @ T, rowvar=False, bias=True), np.eye(4), atol=0.1)
    np.testing.assert_allclose(T @ T_inv, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(T, T.T)


def test_a_class_without_examples_leaves_boxes_alone(stores, rng):
    store = stores.random_store(rng)
    for image in store.images:
        image["gt_labels"][image["gt_labels"] == 1] = 0
    regressors = train_box_regressors(store, 2.0, rng)
    assert regressors.num_examples[1] == 0
    boxes = np.array([[0, 0, 10, 10], [5.5, 3, 9, 40]])
    np.testing.assert_allclose(regressors.predict(np.ones((2, 24), np.float16), boxes, 1), boxes, atol=1e-12)


def test_one_example_gives_a_regressor_that_changes_nothing(stores, rng):
    image = stores.make_image(np.ones((1, 4), np.float32), np.array([[0, 0, 20, 10]]), np.array([0]), 1)
    regressors = train_box_regressors(stores.MemoryStore(["class"], [image], 4), 2.0, rng)
    np.testing.assert_allclose(regressors.predict(np.ones((1, 4)), image["boxes"], 0), [[0, 0, 20, 10]])


def test_prediction_for_one_class_is_its_part_of_all(stores, rng):
    store = stores.random_store(rng)
    regressors = train_box_regressors(store, 2.0, rng)
    features, boxes = store.images[0]["features"], store.images[0]["boxes"]
    together = regressors.predict(features, boxes)
    assert together.shape == (3, 40, 4)
    for label in range(3):
        np.testing.assert_allclose(regressors.predict(features, boxes, label), together[label], atol=1e-4)
    assert regressors.predict(features[:0], boxes[:0]).shape == (3, 0, 4)


def test_only_examples_are_read(stores, rng):
    store = stores.random_store(rng)
    store.images.insert(2, stores.make_image(np.zeros((0, 24), np.float32), np.zeros((0, 4)), [], 3))
    store.num_images += 1
    assert store.rows_read == 0
    assert train_box_regressors(store, 2.0, rng).num_examples.sum() == store.rows_read > 0


def test_examples_beyond_the_memory_are_drawn_and_counted(stores, rng):
    store = stores.random_store(rng, num_features=300)
    everything = train_box_regressors(store, 2.0, rng)
    # 8 x 301^2 bytes do not fit, nor do more than 16 examples: 8 x 16^2 + 4 x 16 x 300.
    settings = RegressorSettings(memory_gigabytes=21.3e-6)
    tight, again = (train_box_regressors(store, 2.0, np.random.default_rng(3), settings) for _ in range(2))
    np.testing.assert_array_equal(tight.num_examples, np.minimum(everything.num_examples, 16))
    np.testing.assert_array_equal(tight.num_examples + tight.num_left_out, everything.num_examples)
    assert tight.num_left_out.sum() > 0
    np.testing.assert_array_equal(tight.Beta, again.Beta)
    with pytest.raises(PipelineError, match="memory_gigabytes = 1e-09"):
        train_box_regressors(store, 2.0, rng, RegressorSettings(memory_gigabytes=1e-9))


@pytest.mark.parametrize("held", [0, 80, 10**9])
def test_features_read_at_once_or_class_by_class_are_the_same(stores, rng, monkeypatch, held):
    store = stores.random_store(rng)
    expected = train_box_regressors(store, 2.0, rng)
    of_all, rows = store.rows_read, 2 * store.num_features
    assert 0 < expected.num_examples[0] < 80 < expected.num_examples.sum()  # in 80 rows there is room for some classes
    monkeypatch.setattr(box_regression, "HELD", held * rows / 1e9 / RegressorSettings().memory_gigabytes)
    reads, read = [], store.read
    monkeypatch.setattr(store, "read", lambda image, wanted=None: reads.append(image) or read(image, wanted))
    np.testing.assert_array_equal(train_box_regressors(store, 2.0, rng).Beta, expected.Beta)
    assert store.rows_read == 2 * of_all
    if held == 10**9:
        assert len(reads) == len(set(reads))


def test_drawn_examples_keep_their_targets(rng):
    examples = box_regression._Examples(np.arange(20) // 4, np.arange(20) % 4, np.arange(80.0).reshape(20, 4))
    drawn = examples.sample(11, rng)
    numbers = 4 * drawn.images + drawn.rows
    assert len(set(numbers.tolist())) == len(drawn) == 11
    assert (np.diff(numbers) > 0).all()
    np.testing.assert_array_equal(drawn.targets, examples.targets[numbers])


def test_a_feature_that_is_not_finite_is_an_error(stores, rng):
    store = stores.random_store(rng)
    store.images[3]["features"][0, 5] = np.inf
    with pytest.raises(PipelineError, match="image 3 of the feature store"):
        train_box_regressors(store, 2.0, rng)


def test_arrays_round_trip_without_pickle(stores, tmp_path, rng):
    regressors = train_box_regressors(stores.random_store(rng), 2.0, rng)
    np.savez(tmp_path / "regressors.npz", **regressors.to_arrays())
    with np.load(tmp_path / "regressors.npz", allow_pickle=False) as saved:
        restored = BoxRegressors.from_arrays(dict(saved))
    assert (restored.classes, restored.scale, restored.ridge) == (regressors.classes, 2.0, 1000.0)
    np.testing.assert_array_equal(restored.Beta, regressors.Beta)
