"""Averages of regions and of maps, against loops over the cells of each bin."""

import numpy as np
import pytest
import torch
import torchvision

from pipeline.networks import average_pooling
from pipeline.networks.average_pooling import AveragingGrid, roi_align, roi_average
from pipeline.networks.roi_pooling import roi_bins, roi_cells, roi_pool

pytestmark = pytest.mark.usefixtures("one_thread")


def slow_average(cells, rois, bins):
    """`cells` [D x h x w] of float64, a stride of 16."""
    depth, height, width = cells.shape
    pooled = np.zeros((len(rois), depth, bins, bins))
    corners = roi_cells(rois, 1 / 16)
    across, down = roi_bins(corners[:, 0::2], bins, width), roi_bins(corners[:, 1::2], bins, height)
    for region, i, j in np.ndindex(len(rois), bins, bins):
        (top, bottom), (left, right) = down[region, i], across[region, j]
        if bottom > top and right > left:
            pooled[region, :, i, j] = cells[:, top:bottom, left:right].mean((1, 2))
    return pooled


def random_rois(count, height, width, seed=0):
    corners = np.random.default_rng(seed).uniform(-30, 16 * max(height, width), (count, 2, 2))
    return np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)


class TestAlign:
    """Against torchvision's, whose boxes are exclusive and whose cells lie half a cell further: 7.5 pixels, as VGG-16's do."""

    @pytest.mark.parametrize("centre", [0.0, 7.5])
    @pytest.mark.parametrize("bins", [1, 7])
    def test_is_torchvisions(self, bins, centre):
        cells, rois = torch.randn(5, 9, 14, dtype=torch.float64, requires_grad=True), random_rois(40, 9, 14)
        theirs = torch.from_numpy(rois).double() + torch.tensor([-0.5, -0.5, 0.5, 0.5]) - centre + 8
        aligned = roi_align(cells, rois, 1 / 16, bins, centre=centre)
        expected = torchvision.ops.roi_align(cells[None], [theirs], bins, 1 / 16, sampling_ratio=2, aligned=True)
        torch.testing.assert_close(aligned, expected)
        gradients = torch.randn_like(aligned)
        own, of_torchvision = (torch.autograd.grad(pooled, cells, gradients)[0] for pooled in (aligned, expected))
        torch.testing.assert_close(own, of_torchvision)

    def test_by_hand(self):
        """On a ramp a bin is the ramp at its middle. The region's pixels 8 to 39 reach from cell 7.5 / 16 to 39.5 / 16."""
        cells = torch.arange(8.0).expand(1, 8, 8)
        aligned = roi_align(cells, np.float32([[8, 0, 39, 60]]), 1 / 16, 2)
        assert aligned[0, 0, 0].tolist() == [(7.5 + 8) / 16, (7.5 + 24) / 16]

    @pytest.mark.parametrize("count", [0, 1, 7])
    def test_many_regions_in_parts(self, monkeypatch, count):
        monkeypatch.setattr(average_pooling, "REGIONS_AT_A_TIME", 3)
        cells, rois = torch.randn(2, 5, 6), random_rois(count, 5, 6)
        at_once = roi_align(cells, rois, 1 / 16, 3)
        with torch.inference_mode():
            torch.testing.assert_close(roi_align(cells, rois, 1 / 16, 3), at_once)
        assert at_once.shape == (count, 2, 3, 3)


class TestRegions:
    @pytest.mark.parametrize("bins", [1, 3, 7])
    def test_is_the_slow_version(self, bins):
        cells, rois = np.random.default_rng(1).normal(size=(5, 9, 14)), random_rois(20, 9, 14)
        pooled = roi_average(torch.from_numpy(cells), rois, 1 / 16, bins)
        assert pooled.shape == (20, 5, bins, bins)
        np.testing.assert_allclose(pooled.numpy(), slow_average(cells, rois, bins), atol=1e-12)

    def test_by_hand(self):
        """Columns 0 and 1, rows 0 to 3 of a map of 4 x 4 cells, in two bins a side; then a region outside of the map."""
        cells = torch.arange(16.0).view(1, 4, 4)
        pooled = roi_average(cells, np.float32([[0, 0, 16, 48], [500, 500, 600, 600]]), 1 / 16, 2)
        assert pooled[0, 0].tolist() == [[2, 3], [10, 11]]
        assert pooled[1].abs().sum() == 0

    def test_where_bins_are_cells_it_is_the_maximum(self):
        cells, rois = torch.randn(3, 7, 7), np.float32([[0, 0, 96, 96]])
        torch.testing.assert_close(roi_average(cells, rois, 1 / 16, 7), roi_pool(cells, rois, 1 / 16, 7))

    def test_gradients(self):
        cells = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
        rois = random_rois(4, 5, 6)
        assert torch.autograd.gradcheck(lambda values: roi_average(values, rois, 1 / 16, 3), cells)

    @pytest.mark.parametrize("count", [0, 1, 7])
    def test_many_regions_are_averaged_in_parts(self, monkeypatch, count):
        monkeypatch.setattr(average_pooling, "REGIONS_AT_A_TIME", 3)
        cells, rois = torch.randn(2, 5, 6), random_rois(count, 5, 6)
        at_once = roi_average(cells, rois, 1 / 16, 3)
        with torch.inference_mode():
            in_parts = roi_average(cells, rois, 1 / 16, 3)
        assert in_parts.shape == (count, 2, 3, 3)
        torch.testing.assert_close(in_parts, at_once)

    def test_keeps_the_precision_of_the_map(self):
        cells, rois = torch.randn(2, 5, 6), random_rois(4, 5, 6)
        pooled = roi_average(cells.bfloat16(), rois, 1 / 16, 3)
        assert pooled.dtype == torch.bfloat16
        torch.testing.assert_close(pooled.float(), roi_average(cells, rois, 1 / 16, 3), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("size", [(14, 14), (7, 7), (9, 20), (3, 5)])
def test_grid_is_torchs_adaptive_pooling(size):
    maps = torch.randn(2, 3, *size).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(AveragingGrid(7)(maps), torch.nn.functional.adaptive_avg_pool2d(maps, 7))
