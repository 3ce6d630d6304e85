"""Position-sensitive pooling: by hand, against a slow version in the release's own words, its gradient, and its properties."""

import math

import numpy as np
import pytest
import torch

from pipeline.r_fcn.position_pooling import by_tables, position_bins, ps_roi_pool, rounded_corners

pytestmark = pytest.mark.usefixtures("one_thread")


def slow_pool(maps, rois, spatial_scale, bins):
    """psroi_pooling_layer.cu, value by value, in float32 up to the cells."""
    classes, height, width = len(maps) // bins**2, *maps.shape[1:]
    scale, pooled = np.float32(spatial_scale), np.zeros((len(rois), classes, bins, bins))
    for number, roi in enumerate(np.asarray(rois, np.float64)):
        x1, y1, x2, y2 = (np.float32(math.floor(abs(value) + 0.5) * math.copysign(1, value)) for value in roi)
        left, top, right, bottom = x1 * scale, y1 * scale, (x2 + np.float32(1)) * scale, (y2 + np.float32(1)) * scale
        bin_width = max(right - left, np.float32(0.1)) / np.float32(bins)
        bin_height = max(bottom - top, np.float32(0.1)) / np.float32(bins)
        for i in range(bins):
            for j in range(bins):
                first_y, end_y = math.floor(np.float32(i) * bin_height + top), math.ceil(np.float32(i + 1) * bin_height + top)
                first_x, end_x = math.floor(np.float32(j) * bin_width + left), math.ceil(np.float32(j + 1) * bin_width + left)
                ys = range(max(first_y, 0), min(end_y, height))
                xs = range(max(first_x, 0), min(end_x, width))
                for label in range(classes):
                    cells = [maps[(label * bins + i) * bins + j, y, x] for y in ys for x in xs]
                    pooled[number, label, i, j] = sum(cells) / len(cells) if cells else 0
    return pooled


def draw(rng, classes=2, bins=3, height=7, width=9, count=20):
    """Maps in float64, and regions in pixels of which some reach out of the image and some are reversed."""
    maps = torch.from_numpy(rng.normal(size=(classes * bins**2, height, width)))
    corners = rng.uniform(-30, [16 * width + 30, 16 * height + 30], (count, 2, 2))
    rois = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    rois[:2] = rois[:2, [2, 3, 0, 1]]
    return maps, rois.astype(np.float32)


@pytest.mark.parametrize("bins", [1, 2, 3, 7])
def test_equals_the_slow_version(rng, bins):
    maps, rois = draw(rng, bins=bins)
    expected = slow_pool(maps.numpy(), rois, 1 / 16, bins)
    np.testing.assert_allclose(ps_roi_pool(maps, rois, 1 / 16, bins), expected, rtol=0, atol=1e-12)
    pooled = ps_roi_pool(maps.float(), rois, 1 / 16, bins)
    assert pooled.dtype == torch.float32
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=1e-5)


def test_by_hand():
    # Four maps of 2 x 4 cells of 16 pixels. A region of pixels 0 to 31 by 0 to 31 is 2 x 2 cells: each bin is one cell.
    maps = torch.arange(32.0).view(4, 2, 4)
    pooled = ps_roi_pool(maps, np.array([[0, 0, 31, 31], [0, 0, 63, 31], [8, 0, 39, 31]]), 1 / 16, 2)
    assert pooled[0, 0].tolist() == [[0, 8 + 1], [16 + 4, 24 + 5]]
    # Twice as wide: bins of two cells.
    assert pooled[1, 0].tolist() == [[0.5, 8 + 2.5], [16 + 4.5, 24 + 6.5]]
    # From 0.5 to 2.5 cells: bins 0.5 to 1.5 and 1.5 to 2.5, which take in all cells that they touch.
    assert pooled[2, 0].tolist() == [[0.5, 8 + 1.5], [16 + 4.5, 24 + 5.5]]


def test_corners_round_before_they_are_scaled():
    assert rounded_corners(np.array([[0.5, 1.5, 2.5, -0.5]])).tolist() == [[1, 2, 3, -1]]
    # 15.4 is pixel 15, which ends cell 0; 15.5 is pixel 16, the first of cell 1.
    ends = [position_bins(rounded_corners(np.array([[0, 0, x, x]]))[:, 0::2], 1 / 16, 1, 9)[0, 0, 1] for x in (15.4, 15.5)]
    assert ends == [1, 2]


def test_a_reversed_region_is_a_tenth_of_a_cell_wide():
    assert position_bins(np.array([[40, 10]], np.float32), 1 / 16, 2, 9).tolist() == [[[2, 3], [2, 3]]]


def test_bins_outside_are_empty():
    maps = torch.ones(9, 4, 4)
    pooled = ps_roi_pool(maps, np.array([[-200, -200, -100, -100], [-48, 0, 47, 47], [640, 0, 700, 63]]), 1 / 16, 3)
    assert pooled[0].abs().max() == pooled[2].abs().max() == 0
    # From cell -3 to 3: the first third is left of the map, and half of the second.
    assert pooled[1, 0].tolist() == [[0, 1, 1]] * 3


def test_each_bin_reads_its_own_maps(rng):
    bins, maps = 3, torch.zeros(18, 5, 6)
    for label in range(2):
        for i in range(bins):
            for j in range(bins):
                maps[(label * bins + i) * bins + j] = 100 * label + 10 * i + j
    expected = [[[100 * label + 10 * i + j for j in range(bins)] for i in range(bins)] for label in range(2)]
    assert ps_roi_pool(maps, np.array([[0, 0, 95, 79]]), 1 / 16, bins)[0].tolist() == expected


def test_the_last_row_and_column_are_read():
    maps = torch.zeros(1, 3, 3)
    maps[0, 2, 2] = 9
    assert ps_roi_pool(maps, np.array([[0, 0, 47, 47]]), 1 / 16, 1).item() == 1


def test_reference_outputs(shared):
    """Data of the release's layer, where they are present."""
    path = shared / "oracles2" / "rfcn.npz"
    if not path.is_file():
        pytest.skip("no reference outputs here")
    with np.load(path, allow_pickle=False) as data:
        for bins in (3, 7):
            maps, rois = torch.from_numpy(data[f"k{bins}_features"]), data[f"k{bins}_rois"]
            for number, roi in enumerate(rois):
                pooled = ps_roi_pool(maps[int(roi[0])], roi[None, 1:], float(data["spatial_scale"]), bins)
                np.testing.assert_allclose(pooled[0], data[f"k{bins}_release"][number], rtol=0, atol=1e-12)
                np.testing.assert_allclose(pooled[0].mean((1, 2)), data[f"k{bins}_votes"][number], rtol=0, atol=1e-12)


def test_torchvisions_is_another():
    torchvision = pytest.importorskip("torchvision")
    maps, rois = draw(np.random.default_rng(1), bins=3, count=50)
    with_image = torch.nn.functional.pad(torch.from_numpy(rois).double(), (1, 0))
    theirs = torchvision.ops.ps_roi_pool(maps[None], with_image, 3, 1 / 16)
    assert (ps_roi_pool(maps, rois, 1 / 16, 3) - theirs).abs().gt(1e-9).double().mean() > 0.4


def test_gradient(rng):
    maps, rois = draw(rng, bins=2, height=4, width=5, count=6)
    assert torch.autograd.gradcheck(lambda values: ps_roi_pool(values, rois, 1 / 16, 2), maps.requires_grad_())


def test_gradient_is_the_slow_versions(rng):
    # Pooling is linear: the gradient of a weighted sum is what the slow version makes of each cell alone.
    maps, rois = draw(rng, classes=1, bins=2, height=3, width=3, count=5)
    weights = torch.from_numpy(rng.normal(size=(5, 1, 2, 2)))
    (ps_roi_pool(maps.requires_grad_(), rois, 1 / 16, 2) * weights).sum().backward()
    expected = np.zeros(maps.shape)
    for place in np.ndindex(*maps.shape):
        alone = np.zeros(maps.shape)
        alone[place] = 1
        expected[place] = (slow_pool(alone, rois, 1 / 16, 2) * weights.numpy()).sum()
    np.testing.assert_allclose(maps.grad, expected, atol=1e-12)


def test_tables_for_other_devices_make_the_same(rng):
    maps, rois = draw(rng, bins=3)
    corners = rounded_corners(rois)
    columns, rows = (position_bins(corners[:, k::2], 1 / 16, 3, maps.shape[2 - k]) for k in (0, 1))
    weights = torch.from_numpy(rng.normal(size=(len(rois), 2, 3, 3)))
    results = []
    for pool in (lambda values: ps_roi_pool(values, rois, 1 / 16, 3), lambda values: by_tables(values, rows, columns)):
        values = maps.clone().requires_grad_()
        pooled = pool(values)
        (pooled * weights).sum().backward()
        results.append((pooled.detach(), values.grad))
    for own, tables in zip(*results, strict=True):
        torch.testing.assert_close(own, tables, rtol=0, atol=1e-12)


def test_threads_change_no_byte(rng):
    maps, rois = draw(rng, bins=3)
    pooled = ps_roi_pool(maps.float(), rois, 1 / 16, 3)
    torch.set_num_threads(2)
    assert torch.equal(pooled, ps_roi_pool(maps.float(), rois, 1 / 16, 3))


def test_bfloat16_becomes_float32(rng):
    maps, rois = draw(rng)
    values = maps.bfloat16().requires_grad_()
    pooled = ps_roi_pool(values, rois, 1 / 16, 3)
    pooled.sum().backward()
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, ps_roi_pool(values.detach().float(), rois, 1 / 16, 3))
    assert values.grad.dtype == torch.bfloat16


def test_no_regions():
    values = torch.ones(8, 3, 3, requires_grad=True)
    pooled = ps_roi_pool(values, np.zeros((0, 4), np.float32), 1 / 16, 2)
    assert pooled.shape == (0, 2, 2, 2)
    pooled.sum().backward()
    assert values.grad.abs().max() == 0


def test_errors():
    with pytest.raises(ValueError, match=r"\[10, 3, 3\], expected a multiple of 3 x 3"):
        ps_roi_pool(torch.ones(10, 3, 3), np.zeros((1, 4)), 1 / 16, 3)
    with pytest.raises(ValueError, match="not finite"):
        ps_roi_pool(torch.ones(9, 3, 3), np.array([[0, 0, np.nan, 1]]), 1 / 16, 3)
