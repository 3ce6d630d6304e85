import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.rcnn.scaling import feature_scale, widen


def store_of(stores, *features):
    images = [stores.make_image(rows, np.tile([0, 0, 9, 9], (len(rows), 1)), np.full(len(rows), -1), 1) for rows in features]
    return stores.MemoryStore(["class"], images, 2)


def test_scale_matches_the_release(stores, oracle, rng):
    data = oracle("svm.npz")
    scale = feature_scale(store_of(stores, data["features"]), rng, boxes=320)
    assert scale == pytest.approx(20 / data["feat_norm_mean"], rel=1e-6)
    np.testing.assert_allclose(data["features"] * scale, data["features_scaled"], rtol=1e-6)


def test_scale_by_hand(stores, rng):
    store = store_of(stores, np.float32([[3, 4]]), np.zeros((0, 2), np.float32), np.float32([[0, 0]]))
    assert feature_scale(store, rng) == 20 / 2.5


def test_scale_of_large_float16_features_does_not_overflow(stores, rng):
    assert feature_scale(store_of(stores, np.float16([[3000, 4000]])), rng) == 20 / 5000


def test_scale_reads_no_more_than_the_sample_and_depends_on_the_generator_alone(stores):
    store = stores.random_store(np.random.default_rng(1), images=9, boxes=30)
    scales = [feature_scale(store, np.random.default_rng(seed), images=4, boxes=5) for seed in (5, 5, 6)]
    assert store.rows_read == 3 * 4 * 5
    assert scales[0] == scales[1] != scales[2]


@pytest.mark.parametrize("features", [np.zeros((3, 2)), np.zeros((0, 2)), np.array([[1, np.inf]])])
def test_scale_refuses_features_without_a_size(stores, features, rng):
    with pytest.raises(PipelineError, match="mean L2 norm"):
        feature_scale(store_of(stores, features.astype(np.float16)), rng)


def test_widen_agrees_with_numpy_on_every_float16():
    values = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    np.testing.assert_array_equal(widen(values), values.astype(np.float32))
    assert widen(np.zeros(3)).dtype == np.float64
