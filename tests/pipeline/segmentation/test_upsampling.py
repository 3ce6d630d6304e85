"""The lecture's four ways to upsample: reference outputs, slow versions, and cases worked by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.segmentation.geometry import Refinement
from pipeline.segmentation.upsampling import Upsampling, bed_of_nails, max_pool, nearest, unpool


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)[None, None]


class TestReferenceOutputs:
    @pytest.fixture
    def data(self, oracle):
        return {name: torch.from_numpy(np.array(value)) for name, value in oracle("upsampling.npz").items()}

    @pytest.mark.parametrize("case", ["even", "odd", "ties"])
    @pytest.mark.parametrize("overlaps", [False, True])
    def test_pooling_and_unpooling(self, data, case, overlaps):
        pooled, indices = max_pool(data[f"{case}_input"], 2, 2)
        assert torch.equal(pooled, data[f"{case}_pooled"])
        assert torch.equal(indices, data[f"{case}_indices"])
        size = tuple(data[f"{case}_input"].shape[2:])
        assert torch.equal(unpool(data[f"{case}_values"], indices, size, overlaps), data[f"{case}_unpooled"])

    def test_overlapping_windows(self, data):
        pooled, indices = max_pool(data["overlap_input"], 3, 2)
        assert torch.equal(pooled, data["overlap_pooled"])
        assert torch.equal(indices, data["overlap_indices"])
        unpooled = unpool(data["overlap_values"], indices, tuple(data["overlap_input"].shape[2:]))
        assert torch.equal(unpooled, data["overlap_unpooled"])

    def test_nearest_and_bed_of_nails(self, data):
        factor = int(data["up_factor"])
        assert torch.equal(nearest(data["up_input"], factor), data["nearest"])
        assert torch.equal(bed_of_nails(data["up_input"], factor), data["bed_of_nails"])


class TestMaxUnpooling:
    def test_channels_last_has_the_same_ties(self):
        """The first of equal values in row order, in the memory layout that networks use too."""
        values = torch.ones(1, 8, 6, 6)
        plain, last = max_pool(values, 2, 2)[1], max_pool(values.to(memory_format=torch.channels_last), 2, 2)[1]
        assert torch.equal(plain, last)
        assert plain[0, 0, 0].tolist() == [0, 2, 4]

    def test_a_place_named_twice_holds_the_last_value(self):
        """The centre is the largest of all four windows of 3 x 3 at stride 2."""
        values = torch.zeros(1, 1, 5, 5)
        values[0, 0, 2, 2] = 9
        _, indices = max_pool(values, 3, 2)
        assert indices.flatten().tolist() == [12] * 4
        unpooled = unpool(torch.tensor([[[[1.0, 2], [3, 4]]]]), indices, (5, 5))
        assert unpooled.sum() == 4
        assert unpooled[0, 0, 2, 2] == 4

    def test_gradients_go_to_the_value_that_was_put(self):
        values = torch.tensor([[[[1.0, 2], [3, 4]]]], requires_grad=True)
        unpool(values, torch.full((1, 1, 2, 2), 12), (5, 5)).sum().backward()
        assert values.grad.flatten().tolist() == [0, 0, 0, 1]

    @pytest.mark.parametrize("overlaps", [False, True])
    def test_gradients_of_places_that_differ(self, overlaps):
        values = torch.arange(4.0).view(1, 1, 2, 2).requires_grad_()
        indices = torch.tensor([[[[0, 5], [7, 15]]]])
        weights = torch.arange(16.0).view(1, 1, 4, 4)
        (unpool(values, indices, (4, 4), overlaps) * weights).sum().backward()
        assert values.grad.flatten().tolist() == [0, 5, 7, 15]

    def test_odd_sides_come_back(self):
        """Unpooling is told the size: a pooled map of 4 x 3 may come from 7 x 5 or 8 x 6."""
        values = torch.rand(1, 2, 7, 5)
        pooled, indices = max_pool(values, 2, 2)
        back = unpool(pooled, indices, (7, 5), overlaps=False)
        assert torch.equal(back[back > 0], values[back > 0])
        assert int((back > 0).sum()) == pooled.numel()


class TestPlainWays:
    def test_nearest_by_hand(self):
        assert nearest(tensor([[1, 2], [3, 4]]), 2, (3, 5))[0, 0].tolist() == [[1, 1, 2, 2, 2], [1, 1, 2, 2, 2], [3, 3, 4, 4, 4]]

    def test_bed_of_nails_by_hand(self):
        assert bed_of_nails(tensor([[1, 2], [3, 4]]), 2, (3, 5))[0, 0].tolist() == [[1, 0, 2, 0, 0], [0] * 5, [3, 0, 4, 0, 0]]

    @pytest.mark.parametrize("way", [nearest, bed_of_nails])
    def test_gradients(self, way):
        values = torch.rand(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
        torch.autograd.gradcheck(lambda each: way(each, 2, (5, 5)), values)


class TestTransposedConvolution:
    @pytest.mark.parametrize("refinement", [Refinement(2, 0.5), Refinement(2, 1.0), Refinement(4, -2.0), Refinement(8, 3.5)])
    def test_fixed_is_the_convolution_with_the_bilinear_kernel(self, refinement):
        """The two products are what torch's transposed convolution makes, cropped."""
        fixed, learned = (Upsampling(refinement, 3, learned).double() for learned in (False, True))
        values = torch.rand(2, 3, 4, 5, dtype=torch.float64)
        rows, columns = fixed.reached((4, 5), (24, 31))
        expected = learned(values, rows, columns)
        assert expected.shape == (2, 3, rows[1] - rows[0], columns[1] - columns[0])
        torch.testing.assert_close(fixed(values, rows, columns), expected, atol=1e-6, rtol=0)  # kernels are float32

    def test_against_a_slow_version(self, oracle):
        """`learned` adds value times kernel where the kernel lies; one kernel a channel."""
        data = oracle("upsampling.npz")
        values = torch.from_numpy(data["tconv_a_input"])[None]
        upsampling = Upsampling(Refinement(2, 1.0), 2, learned=True).double()
        kernels = torch.from_numpy(data["tconv_a_weight"])[:, :1].clone()
        upsampling.weight.data = kernels
        expected = np.zeros((2, 2 * 3 + 1, 2 * 4 + 1))
        for c in range(2):
            for y in range(3):
                for x in range(4):
                    expected[c, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3] += values[0, c, y, x].item() * kernels[c, 0].numpy()
        np.testing.assert_allclose(upsampling(values, (0, 7), (0, 9)).detach()[0].numpy(), expected)

    def test_cases_of_the_oracle(self, oracle):
        """Its transposed convolutions are torch's, with which learned ones are made."""
        data = oracle("upsampling.npz")
        for case in sorted({name.split("_")[1] for name in data if name.startswith("tconv_")}):
            _, stride, padding, more = data[f"tconv_{case}_geometry"].tolist()
            values, weight = (torch.from_numpy(data[f"tconv_{case}_{part}"]) for part in ("input", "weight"))
            ours = nn.functional.conv_transpose2d(values[None], weight, stride=stride, padding=padding, output_padding=more)
            np.testing.assert_allclose(ours[0].numpy(), data[f"tconv_{case}_output"], atol=1e-9)

    def test_a_constant_stays_constant_inside(self):
        """The kernels of neighbours sum to 1: no checkerboard."""
        upsampling = Upsampling(Refinement(4, 1.5), 1, learned=True)
        values = upsampling(torch.ones(1, 1, 5, 5), (4, 14), (4, 14))
        torch.testing.assert_close(values, torch.ones_like(values))

    def test_scores_keep_their_precision_in_mixed_precision(self):
        values = torch.rand(1, 2, 3, 3) + 1000
        for learned in (False, True):
            upsampling = Upsampling(Refinement(2, 0.5), 2, learned)
            expected = upsampling(values, (1, 4), (1, 4))
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(upsampling(values, (1, 4), (1, 4)), expected)
