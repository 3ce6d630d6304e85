"""Maps of several strides from our trunks."""

import pytest
import torch

from pipeline.later_detectors.maps import HalvedLevels, Pyramid, TrunkMaps, find_taps
from pipeline.networks.backbones import make_backbone
from pipeline.networks.variants import NAMES


@pytest.mark.parametrize("name", [
    "tiny", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in NAMES if name != "tiny"),
])
def test_sizes_and_places(name):
    """A bright spot is brightest in the cell that stands for it, at each stride, whatever the trunk's padding."""
    torch.manual_seed(0)
    maps = TrunkMaps(make_backbone(name).eval(), (4, 8, 16))
    images = torch.randn(1, 3, 200, 230)  # each cell is normalised: on zeros the faintest change would count as much as the spot
    spot = images.clone()
    spot[:, :, 96:112, 128:144] = 3.0
    with torch.no_grad():
        before, after = (maps(values) for values in (images, spot))
    for stride, plain, changed in zip(maps.strides, before, after, strict=True):
        assert plain.shape[-2:] == (-(-200 // stride), -(-230 // stride))
        change = (changed - plain).abs().sum(1)[0]
        rows, columns = torch.arange(change.shape[0]), torch.arange(change.shape[1])
        total = change.sum()
        centre = [float((change.sum(1 - axis) * places).sum() / total * stride) for axis, places in ((0, rows), (1, columns))]
        # The spot's middle is at (104, 136); a cell is off by less than one and a half.
        assert abs(centre[0] - 104) < 24
        assert abs(centre[1] - 136) < 24


def test_taps_by_hand():
    assert find_taps(make_backbone("tiny").trunk) == {2: (0, 16), 4: (3, 32), 8: (6, 64), 16: (12, 128)}


def test_a_stride_that_no_map_has():
    with pytest.raises(ValueError, match="no map of stride 32"):
        TrunkMaps(make_backbone("tiny"), (8, 32))


def test_values_are_of_one_length():
    torch.manual_seed(0)
    maps = TrunkMaps(make_backbone("tiny"), (16,))
    with torch.no_grad():
        (values,) = maps(torch.rand(1, 3, 64, 64) * 1000)
    norms = values.norm(dim=1)
    torch.testing.assert_close(norms, torch.full_like(norms, 128**0.5))


def test_levels_are_halved_one_after_another():
    levels = HalvedLevels(8, 2)
    results, names = levels([torch.rand(1, 8, 12, 12)], [torch.rand(1, 4, 12, 12)], ["0"])
    assert names == ["0", "1", "2"]
    assert [values.shape[-1] for values in results] == [12, 6, 3]


def test_pyramid_has_one_width():
    pyramid = Pyramid(TrunkMaps(make_backbone("tiny"), (4, 8, 16)), 24, 2)
    with torch.no_grad():
        levels = pyramid(torch.rand(1, 3, 128, 96))
    assert {name: tuple(values.shape[1:]) for name, values in levels.items()} == {
        "0": (24, 32, 24), "1": (24, 16, 12), "2": (24, 8, 6), "3": (24, 4, 3), "4": (24, 2, 2),
    }
