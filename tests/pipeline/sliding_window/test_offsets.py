"""Pooling from offsets: a case by hand, OverFeat's sizes, and the same by other means."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.sliding_window.offsets import interleave, pool_at_offsets


@pytest.fixture
def maps():
    return torch.rand((2, 3, 20, 23), dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_by_hand():
    """A row of 1 to 8 (2 modulo 3), on three rows that differ by 100: from offset 1 the threes are 2 3 4 and 5 6 7."""
    maps = torch.arange(1.0, 9)[None, None, None] + 100 * torch.arange(5.0)[:, None]
    pooled = pool_at_offsets(maps)
    assert pooled.shape == (1, 3, 3, 1, 1, 2)
    assert pooled[0, 0, 1, 0].tolist() == [[204, 207]]
    assert pooled[0, 2, 2, 0].tolist() == [[405, 408]]
    assert interleave(pooled)[0, 0].tolist() == [[200 + n for n in range(3, 9)], [300 + n for n in range(3, 9)],
                                                [400 + n for n in range(3, 9)]]


@pytest.mark.parametrize(("before", "after"), [
    ((17, 17), (5, 5)), ((20, 23), (6, 7)), ((23, 29), (7, 9)), ((29, 35), (9, 11)), ((32, 35), (10, 11)), ((35, 44), (11, 14)),
])
def test_sizes_of_the_paper(before, after):
    """Table 5 of Sermanet et al. 2014."""
    assert pool_at_offsets(torch.zeros(1, 1, *before)).shape[-2:] == after


def test_cells_that_not_all_offsets_reach_are_left_out():
    assert pool_at_offsets(torch.zeros(1, 1, 19, 18)).shape[-2:] == (5, 5)


def test_equals_the_classifier_on_every_part_of_the_map(maps):
    """The paper's claim: each output is what the network gives for one window, pooled at offset 0."""
    classifier = nn.Conv2d(3, 4, 2).double()
    pooled = pool_at_offsets(maps)
    dense = interleave(classifier(pooled.flatten(0, 2)).unflatten(0, pooled.shape[:3]))
    assert dense.shape == (2, 4, 15, 18)
    for row, column in np.ndindex(15, 18):
        window = nn.functional.max_pool2d(maps[:, :, row:row + 6, column:column + 6], 3)
        torch.testing.assert_close(dense[:, :, row, column], classifier(window)[:, :, 0, 0], rtol=0, atol=1e-12)


def test_equals_pooling_everywhere_and_a_dilated_classifier(maps):
    classifier = nn.Conv2d(3, 4, 2).double()
    pooled = pool_at_offsets(maps)
    dense = interleave(classifier(pooled.flatten(0, 2)).unflatten(0, pooled.shape[:3]))
    everywhere = nn.functional.conv2d(
        nn.functional.max_pool2d(maps, 3, stride=1), classifier.weight, classifier.bias, dilation=3
    )
    torch.testing.assert_close(dense, everywhere, rtol=0, atol=1e-12)


@pytest.mark.parametrize("number", [0, 1])
def test_agrees_with_the_oracle(shared, number):
    path = shared / "oracles2" / "overfeat.npz"
    if not path.is_file():
        pytest.skip(f"oracle absent: {path.name}")
    given = {name: torch.from_numpy(values) for name, values in np.load(path, allow_pickle=False).items() if values.ndim}
    maps, weight, bias, expected = (given[f"m{number}_{name}"] for name in ("map", "weight", "bias", "pooled"))
    pooled = pool_at_offsets(maps[None])
    assert torch.equal(pooled[0], expected)
    outputs = nn.functional.conv2d(pooled.flatten(0, 2), weight, bias).unflatten(0, pooled.shape[:3])
    interleaved = interleave(outputs)[0]
    torch.testing.assert_close(interleaved, given[f"m{number}_output"], rtol=0, atol=1e-9)
    torch.testing.assert_close(interleaved.amax((1, 2)), given[f"m{number}_spatial_max"], rtol=0, atol=1e-9)
