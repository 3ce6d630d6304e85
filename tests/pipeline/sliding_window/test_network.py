"""The window network: dense and naive give the same, and where padding makes them differ."""

import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.networks.backbones import make_backbone
from pipeline.sliding_window.layout import layout_of
from pipeline.sliding_window.network import CELLS, WindowNetwork, restore_windows
from pipeline.sliding_window.trunk import is_unpadded

pytestmark = pytest.mark.usefixtures("one_thread")


def make_network(backbone="tiny", num_classes=3) -> WindowNetwork:
    torch.manual_seed(1)
    network = WindowNetwork(make_backbone(backbone), num_classes)
    network.map_scale.fill_(0.5)
    return network.double().eval()


def both(network: WindowNetwork, rows: int, columns: int):
    """Scores and edges of all windows of a random image: dense, and of the crop of each window."""
    layout = network.layout
    size = layout.length(rows), layout.length(columns)
    image = torch.randn((1, 3, *size), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        dense = network(image)
        crops = [image[0, :, y1:y2, x1:x2] for x1, y1, x2, y2 in layout.windows(rows, columns).astype(int)]
        naive = network.of_windows(torch.stack(crops))
    return [(d[0].flatten(1).T, n) for d, n in zip(dense, naive, strict=True)]


def test_dense_equals_naive():
    for dense, naive in both(make_network(), 3, 6):
        assert dense.shape[0] == 18
        assert dense.std(dim=0).min() > 0
        torch.testing.assert_close(dense, naive, rtol=0, atol=1e-12)


def test_another_step_is_not_the_same():
    """The test above would fail if a window were one cell off."""
    (dense, naive), _ = both(make_network(), 3, 6)
    assert (dense[1:] - naive[:-1]).abs().max() > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["alexnet"])
def test_dense_equals_naive_for_other_unpadded_trunks(backbone):
    for dense, naive in both(make_network(backbone), 3, 3):
        torch.testing.assert_close(dense, naive, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [
    "squeezenet1_0", *(pytest.param(name, marks=pytest.mark.exhaustive)
                       for name in ("efficientnet_lite0", "mobilenet_v3_large", "resnet18")),
])
def test_a_padded_trunk_differs_at_the_borders_of_windows(backbone):
    network = make_network(backbone)
    assert not is_unpadded(network.trunk)
    (dense, naive), _ = both(network, 3, 3)
    assert (dense - naive).abs().max() > 1e-6


def test_side_and_step():
    """By hand, from the input: 5 at stride 2, pooled: 7 at stride 4; 15; pooled: 19 at 8; 35, 51, 67; then 6 cells of 8."""
    layout = layout_of("tiny", CELLS)
    assert (layout.side, layout.stride) == (67 + 5 * 8, 8)
    # conv 11/4, pool 3/2 (19 at 8), conv 5 (51), pool 3/2 (67 at 16), three convs of 3 (99, 131, 163), 5 cells more.
    layout = layout_of("alexnet", CELLS)
    assert (layout.side, layout.stride) == (163 + 5 * 16, 16)


def test_which_trunks_are_unpadded():
    with torch.device("meta"):
        padded = {name: is_unpadded(WindowNetwork(make_backbone(name), 1).trunk) for name in ("tiny", "alexnet", "vgg16")}
    assert padded == {"tiny": True, "alexnet": True, "vgg16": True}


class TestRestore:
    def test_round_trip(self):
        network = make_network().float()
        tensors = {name: value.clone() for name, value in network.state_dict().items()}
        again = restore_windows(tensors, "tiny", CELLS, "a file").eval()
        image = torch.randn(1, 3, 107, 107)
        with torch.no_grad():
            assert torch.equal(again.of_windows(image)[0], network.of_windows(image)[0])

    def test_other_weights(self):
        with pytest.raises(PipelineError, match="a file: not the weights of sliding windows"):
            restore_windows({}, "tiny", CELLS, "a file")
