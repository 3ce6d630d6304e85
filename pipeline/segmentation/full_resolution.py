"""Full resolution: a few convolutions of stride 1, so that every layer has a value for every pixel. Small, to show its cost.

The lecture's second idea: right in principle, but the activations take H x W x D in every layer, and a cell sees few pixels.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.networks.backbones import Backbone
from pipeline.segmentation.geometry import Layer, reach
from pipeline.segmentation.layout import Layout
from pipeline.segmentation.score_maps import scored, without_weights

CHANNELS = 16, 32, 32, 32  # of the layers, all 3 x 3


class FullResolution(nn.Module):
    """The layers; the backbone is not used."""

    def __init__(self, backbone: Backbone, layout: Layout):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *CHANNELS), CHANNELS):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            nn.init.kaiming_normal_(layers[-2].get_parameter("weight"), nonlinearity="relu")
            nn.init.zeros_(layers[-2].get_parameter("bias"))
        self.layers = nn.Sequential(*layers)
        self.scores = without_weights(nn.Conv2d(CHANNELS[-1], layout.num_classes, 1))

    def encode(self, backbone: Backbone, images: Tensor, dropout: bool) -> list[Tensor]:
        return [images]

    def decode(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        return scored(self.scores, self.layers(maps[0]))

    def calibrate(self, backbone: Backbone, images: list[Tensor], but: frozenset[str]) -> None:
        """Nothing is standardised: the layers see normalised pixels."""

    def dependence(self, backbone: Backbone) -> tuple[int, int]:
        return reach([Layer(3, 1, 1)] * len(CHANNELS)), 1
