"""RoI pooling against torchvision and the oracle; by hand."""


import numpy as np
import pytest
import torch
import torchvision
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.networks.max_pooling import distinct
from pipeline.networks.roi_pooling import LEAST_CHANNELS, by_torchvision, roi_cells, roi_pool
from tests.pipeline.networks.random_maps import make_map, make_rois
from tests.tiers import examples

HALVES = (torch.bfloat16, torch.float16)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def first_channels(cells):
    """[h x w x D] -> tensor [D x h x w], channels last in memory."""
    return torch.from_numpy(cells).permute(2, 0, 1)


def pool_and_back(pool, features, grad_pooled):
    """What `pool` makes of `features`, and the gradient of these."""
    features = features.detach().clone().requires_grad_()
    pooled = pool(features)
    pooled.backward(grad_pooled)
    return pooled.detach(), features.grad


def assert_equals_torchvision(features, rois, scale, bins):
    grad_pooled = torch.from_numpy(np.random.default_rng(2).standard_normal((len(rois), len(features), bins, bins), np.float32))
    boxes = torch.from_numpy(rois)
    theirs = pool_and_back(lambda f: torchvision.ops.roi_pool(f[None], [boxes], bins, scale), features, grad_pooled)
    ours = pool_and_back(lambda f: roi_pool(f, rois, scale, bins), features, grad_pooled)
    assert torch.equal(ours[0].view(torch.int32), theirs[0].view(torch.int32))  # zeros have the same sign
    assert torch.equal(ours[1], theirs[1])
    assert torch.equal(roi_pool(features, boxes, scale, bins), theirs[0])


def test_equals_the_oracle(oracle):
    data = oracle("roi_pool.npz")
    scale, bins = float(data["spatial_scale"]), int(data["output_size"])
    for image, features in enumerate(torch.from_numpy(data["features"])):
        mine = data["rois"][:, 0] == image
        grad_pooled = torch.from_numpy(data["grad_output"][mine])
        rois = data["rois"][mine, 1:]
        pooled, grad = pool_and_back(lambda f, rois=rois: roi_pool(f, rois, scale, bins), features, grad_pooled)
        assert np.array_equal(pooled.numpy(), data["pooled"][mine])
        np.testing.assert_allclose(grad.numpy(), data["grad_features"][image], atol=1e-5)


@settings(deadline=None, max_examples=examples(200))
@given(
    st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.integers(0, 12), st.integers(1, 8),
    st.sampled_from([1.0, 0.25, 1 / 16, 0.1]), st.integers(0, 1000),
)
@example(64, 64, 3, 300, 7, 1 / 16, 0)
@example(1, 1, 1, 4, 7, 1 / 16, 0)
def test_equals_torchvision(height, width, depth, count, bins, scale, seed):
    features = first_channels(make_map(height, width, depth, seed))
    assert_equals_torchvision(features, make_rois(count, height, width, seed) / np.float32(scale), scale, bins)


def test_equals_torchvision_on_a_large_map():
    cells = np.random.default_rng(0).standard_normal((38, 50, 96), np.float32)
    assert_equals_torchvision(first_channels(cells), make_rois(400, 38, 50) * 16, 1 / 16, 7)


def test_bins_by_hand():
    # Six columns, of which the region has 1 .. 5: in two bins 2.5 wide, 0 .. 3 and 2 .. 5 of it. All rows are the same.
    features = torch.tensor([9.0, 1, 2, 5, 3, 4]).expand(1, 6, 6)
    pooled = roi_pool(features, np.array([[16, 16, 80, 80]]), 1 / 16, 2)
    assert pooled.tolist() == [[[[5, 5], [5, 5]]]]
    features = torch.tensor([9.0, 6, 2, 5, 3, 7]).expand(1, 6, 6).transpose(1, 2)
    assert roi_pool(features, np.array([[16, 16, 80, 80]]), 1 / 16, 2).tolist() == [[[[6, 6], [7, 7]]]]


def test_bin_edges_are_float32():
    features = torch.zeros(1, 1, 58)
    features[..., 57] = 1
    # In float32, 7 * (57 / 7) is above 57.
    assert roi_pool(features, np.array([[0, 0, 56, 0]]), 1.0, 7)[0, 0, 0].tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert not roi_pool(features, np.array([[0, 0, 55, 0]]), 1.0, 7).any()


def test_corners_round_half_away_from_zero():
    assert roi_cells(np.array([-24, -8, 8, 24]), 1 / 16).tolist() == [[-2, -1, 1, 2]]
    assert roi_cells(torch.tensor([[-7.99, 7.99, 40, 55.99]]), 1 / 16).tolist() == [[0, 0, 3, 3]]
    assert roi_cells(np.float32([[0.49999997, -0.49999997, 0.5, -0.5]]), 1).tolist() == [[0, 0, 1, -1]]


def test_empty_bins_are_zero_even_where_all_is_negative():
    features = torch.full((2, 3, 4), -1.0)
    outside, beside = [64, 0, 80, 32], [-64, 0, 48, 32]
    pooled = roi_pool(features, np.array([outside, beside]), 1 / 16, 2)
    assert not pooled[0].any()
    assert pooled[1].tolist() == [[[0, -1], [0, -1]]] * 2  # eight columns, the first four outside
    assert roi_pool(features.bfloat16(), np.array([outside, beside]), 1 / 16, 2).equal(pooled.bfloat16())


def test_gradient_equals_finite_differences():
    rng = np.random.default_rng(0)
    # Different values, far enough apart for no step to change their order.
    features = torch.from_numpy(rng.permutation(2 * 6 * 7).reshape(2, 6, 7).astype(np.float32))
    rois, weights = make_rois(5, 6, 7), torch.from_numpy(rng.standard_normal((5, 2, 3, 3), np.float32))
    _, grad = pool_and_back(lambda f: roi_pool(f, rois, 1, 3), features, weights)
    for place in np.ndindex(*features.shape):
        step = torch.zeros_like(features)
        step[place] = 0.25
        change = (roi_pool(features + step, rois, 1, 3) - roi_pool(features - step, rois, 1, 3)) * weights
        assert change.sum().item() / 0.5 == pytest.approx(grad[place].item(), abs=1e-5)
    assert grad.any()


def test_gradient_goes_to_the_first_of_equal_cells():
    _, grad = pool_and_back(lambda f: roi_pool(f, np.array([[0, 0, 2, 1]]), 1, 1), torch.zeros(1, 2, 3), torch.ones(1, 1, 1, 1))
    assert grad.tolist() == [[[1, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("sign", ["both", "positive", "negative"])
def test_sixteen_bits(dtype, sign):
    cells = np.random.default_rng(0).standard_normal((9, 11, 20)).astype(np.float32)
    cells = {"both": cells, "positive": np.maximum(cells, 0), "negative": -np.abs(cells)}[sign]
    features, rois = first_channels(cells).to(dtype), make_rois(50, 9, 11)
    grad_pooled = torch.ones(50, 20, 4, 4)
    pooled, grad = pool_and_back(lambda f: roi_pool(f, rois, 1, 4), features, grad_pooled.to(dtype))
    expected = pool_and_back(lambda f: roi_pool(f, rois, 1, 4), features.float(), grad_pooled)
    assert pooled.dtype == grad.dtype == dtype
    assert torch.equal(pooled.float(), expected[0])
    assert torch.equal(grad.float(), expected[1])  # small whole numbers


def test_any_memory_order_and_contiguous_results():
    cells, rois = make_map(9, 11, 20), make_rois(50, 9, 11)
    last, first = first_channels(cells), first_channels(cells).contiguous()
    pooled = roi_pool(last, rois, 1, 3)
    assert pooled.is_contiguous()
    assert torch.equal(roi_pool(first, rois, 1, 3), pooled)
    assert torch.equal(roi_pool(last.flip(2), rois, 1, 3), roi_pool(last.flip(2).contiguous(), rois, 1, 3))
    with torch.inference_mode():
        assert torch.equal(roi_pool(last.clone(), rois, 1, 3), pooled)
    assert np.array_equal(last.permute(1, 2, 0).numpy(), make_map(9, 11, 20))  # it left its input alone


# What other devices than the CPU have, on the CPU: torchvision's operator forwards, gradients added up in a fixed order.
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_path_of_other_devices(dtype):
    # No -0, which the CPU has below 0 in 16 bits
    features, rois = first_channels(make_map(38, 50, 12) + 0).to(dtype), make_rois(200, 38, 50) * 16
    grad_pooled = torch.randint(-2, 3, (200, 12, 7, 7), generator=torch.Generator().manual_seed(0)).to(dtype)
    pools = [lambda f: by_torchvision(f, rois, 1 / 16, 7), lambda f: roi_pool(f, rois, 1 / 16, 7)]
    (pooled, grad), expected = [pool_and_back(pool, features, grad_pooled) for pool in pools]
    assert pooled.dtype == grad.dtype == dtype
    assert torch.equal(pooled, expected[0])
    assert torch.equal(grad, expected[1])


def test_empty_bins_have_no_gradient_on_other_devices():
    outside = np.array([[-40, -40, -20, -20], [0, 0, 1, 1]], np.float32)
    _, grad = pool_and_back(
        lambda f: by_torchvision(f, outside, 1, 1), torch.tensor([[[1.0, 0], [0, 0]]]), torch.ones(2, 1, 1, 1)
    )
    assert grad.tolist() == [[[1, 0], [0, 0]]]


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_cuda_equals_the_cpu(dtype):
    features, rois = first_channels(make_map(38, 50, 64) + 0).to(dtype), make_rois(200, 38, 50) * 16
    grad_pooled = torch.randint(-2, 3, (200, 64, 7, 7)).to(dtype)  # small whole numbers: sums are exact in any order
    results = [pool_and_back(lambda f: roi_pool(f, rois, 1 / 16, 7), f, g) for f, g in (
        (features, grad_pooled), (features.cuda(), grad_pooled.cuda())
    )]
    for here, there in zip(*results, strict=True):
        assert torch.equal(there.cpu(), here)


@needs_cuda
def test_cuda_gradients_are_the_same_in_every_run():
    features, rois = first_channels(make_map(38, 50, 64)).cuda(), make_rois(2000, 38, 50) * 16
    grad_pooled = torch.randn(2000, 64, 7, 7).cuda()
    grads = [pool_and_back(lambda f: roi_pool(f, rois, 1 / 16, 7), features, grad_pooled)[1] for _ in range(10)]
    assert all(torch.equal(grad, grads[0]) for grad in grads)


@pytest.mark.parametrize("features", [torch.zeros(3, 4, 5, dtype=torch.float64), torch.zeros(1, 3, 4, 5)])
def test_a_map_of_another_kind_is_refused(features):
    with pytest.raises(ValueError, match="expected float32 or 16-bit floats"):
        roi_pool(features, np.zeros((1, 4)), 1 / 16, 7)


@pytest.mark.parametrize("corner", [np.nan, np.inf, -np.inf, 32767 * 16, -1e30])
def test_far_corners_are_refused(corner):
    with pytest.raises(ValueError, match="not finite or 32767 cells away"):
        roi_pool(torch.zeros(1, 4, 5), np.array([[0, 0, 9, 9], [0, 0, corner, 9]]), 1 / 16, 7)


@settings(deadline=None, max_examples=examples(100))
@given(st.lists(st.lists(st.sampled_from([-32766, -2, -1, 0, 1, 7, 32766]), min_size=4, max_size=4), max_size=30))
def test_distinct_rows(rows):
    cells = np.array(rows, np.int64).reshape(-1, 4)
    indices, kinds = distinct(cells)
    assert sorted(indices.tolist()) == [i for i, row in enumerate(rows) if row not in rows[:i]]
    assert np.array_equal(cells[indices][kinds], cells)


def test_regions_of_the_same_cells_pool_the_same():
    features, rois = first_channels(make_map(4, 5, 3)), make_rois(300, 4, 5)
    indices, kinds = distinct(roi_cells(rois, 1))
    assert len(indices) < len(rois)
    assert torch.equal(roi_pool(features, rois[indices], 1, 3)[kinds], roi_pool(features, rois, 1, 3))


def test_no_regions():
    none = np.empty((0, 4), np.float32)
    features = torch.ones(3, 5, 6, requires_grad=True)
    pooled = roi_pool(features, none, 1 / 16, 7)
    pooled.sum().backward()
    assert pooled.shape == (0, 3, 7, 7)
    assert not features.grad.any()
    assert [len(part) for part in distinct(roi_cells(none, 1 / 16))] == [0, 0]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("count", [1, 5, 300])
def test_threads_change_no_byte(count):
    depth = 2 * LEAST_CHANNELS + 1  # enough for two threads to share the gradients
    cells = np.random.default_rng(0).standard_normal((30, 40, depth), np.float32)
    rois = make_rois(count, 30, 40)
    grad_pooled = torch.from_numpy(np.random.default_rng(1).standard_normal((count, depth, 5, 5), np.float32))
    seen = set()
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        pooled, grad = pool_and_back(lambda f: roi_pool(f, rois, 1, 5), first_channels(cells), grad_pooled)
        seen.add(pooled.numpy().tobytes() + grad.contiguous().numpy().tobytes())
    assert len(seen) == 1
