"""Maps of several strides from one of our trunks: what feature pyramids and SSD read.

Cell i of a map of stride s stands for the pixels around s i, whatever the trunk's padding is. H pixels give ceil(H / s) cells.

Shape shorthand: N images of H x W pixels.
"""

import copy
import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from pipeline.networks.backbones import Backbone

PROBE = 256  # side of the image by which a trunk's maps are measured


class CellNorm(nn.Module):
    """Each cell of a map is brought to one length, and each channel has a factor that is learnt (ParseNet; SSD's conv4_3).

    At the start values are near 1: SSD's length of 20 is 0.9 for each of the 512 channels that it has.

    NOTE: SSD does so with its first map alone. Here all maps of our trunks are: their values differ a thousandfold by trunk.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), channels**0.5))

    def forward(self, values: Tensor) -> Tensor:
        return nn.functional.normalize(values.float()) * self.weight[:, None, None]


class TrunkMaps(nn.Module):
    """The last map of a trunk at each of `strides`, rising; `channels` are theirs."""

    def __init__(self, backbone: Backbone, strides: tuple[int, ...]):
        super().__init__()
        self.trunk, self.strides = backbone.trunk, strides
        taps = find_taps(backbone.trunk)
        if missing := set(strides) - taps.keys():
            raise ValueError(f"backbone {backbone.name} has no map of stride {min(missing)}; it has {sorted(taps)}")
        self.taps = {taps[stride][0]: stride for stride in strides}
        self.channels = [taps[stride][1] for stride in strides]
        self.norms = nn.ModuleList(CellNorm(channels) for channels in self.channels)
        view = backbone.view
        # Cells are at s i + s (border + centre) / stride in an image without a border: by how many whole cells that is too far.
        self.shift, self.stride = round((view.border + view.centre) / view.stride), view.stride

    def forward(self, images: Tensor) -> list[Tensor]:
        """[N x 3 x H x W] -> maps [N x D x ceil(H / s) x ceil(W / s)]."""
        height, width = images.shape[-2:]
        before = self.shift * self.stride
        values = nn.functional.pad(images, [before, 2 * self.stride, before, 2 * self.stride])
        maps: list[Tensor] = []
        for number, module in enumerate(self.trunk):
            values = module(values)
            if (stride := self.taps.get(number)) is not None:
                first = before // stride - self.shift
                # Rounds up without a negative number: the exporter of ONNX files rounds those towards 0.
                rows, columns = (first + (side + stride - 1) // stride for side in (height, width))
                maps.append(self.norms[len(maps)](values[:, :, first:rows, first:columns]))
        return maps


def find_taps(trunk: nn.Sequential) -> dict[int, tuple[int, int]]:
    """For each stride of a trunk's maps: the number of the last module that makes such a map, and its channels."""
    taps, stride, side = {}, 1, PROBE
    values = torch.empty((1, 3, PROBE, PROBE), device="meta")
    for number, module in enumerate(copy.deepcopy(trunk).to("meta").eval()):
        values = module(values)
        stride *= 2 ** round(math.log2(side / values.shape[-1]))
        side = values.shape[-1]
        taps[stride] = number, values.shape[1]
    return taps


class HalvedLevels(ExtraFPNBlock):
    """Levels beyond the trunk's last map: each a convolution of stride 2 on the one before, as P7 on P6 in RetinaNet.

    NOTE: the papers' ResNets have a map of stride 32 of their own. Our trunks end at stride 16.
    """

    def __init__(self, channels: int, count: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(channels, channels, 3, 2, 1) for _ in range(count))
        for layer in self.layers:
            nn.init.kaiming_uniform_(layer.get_parameter("weight"), a=1)
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        results, names = list(results), list(names)
        for layer in self.layers:
            values = nn.functional.relu(results[-1]) if len(results) > len(x) else results[-1]
            results.append(layer(values))
            names.append(str(len(names)))
        return results, names


class Pyramid(nn.Module):
    """A feature pyramid (Lin et al., CVPR 2017) on a trunk's maps, and `halved` levels beyond; levels are named "0", "1", ..."""

    def __init__(self, maps: TrunkMaps, channels: int, halved: int):
        super().__init__()
        self.maps, self.out_channels = maps, channels
        self.fpn = FeaturePyramidNetwork(maps.channels, channels, HalvedLevels(channels, halved))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.maps(images)
        return self.fpn(OrderedDict((str(number), values) for number, values in enumerate(maps)))
