"""FCN-32s, 16s and 8s on any backbone (Long et al. 2015): the whole image through the conv layers once, then `ScoreMaps`."""

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.networks.backbones import Backbone
from pipeline.segmentation import encoder
from pipeline.segmentation.geometry import reach
from pipeline.segmentation.layout import SKIPS, Layout
from pipeline.segmentation.score_maps import AT_ONCE, HIDDEN_LAYER, ScoreMaps

HIDDEN = 256  # ours: channels of the new layer on a deepest map that no layer of the backbone made


class FullyConvolutional(nn.Module):
    """The layers of an FCN that the backbone does not have."""

    def __init__(self, backbone: Backbone, layout: Layout):
        super().__init__()
        reading = encoder.READINGS[backbone.name]
        self.strides = SKIPS[layout.kind]
        self.released = reading.released
        places = [encoder.map_coordinates(backbone, stride) for stride in self.strides]
        is_new = not (encoder.slides(backbone) or encoder.convolutional_head(backbone))
        scaled = self.released and layout.at_once
        self.layers = ScoreMaps(
            places, [reading.channels[stride] for stride in self.strides], layout.num_classes, learned=layout.learned,
            scales=[AT_ONCE.get(stride, 1.0) if scaled else 1.0 for stride in self.strides], hidden=HIDDEN if is_new else 0,
        )

    def encode(self, backbone: Backbone, images: Tensor, dropout: bool) -> list[Tensor]:
        return encoder.encode(backbone, images, self.strides, dropout)

    def decode(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        return self.layers(maps, size)

    def dependence(self, backbone: Backbone) -> tuple[int, int]:
        layers = encoder.map_layers(backbone, encoder.DEEP) + ([HIDDEN_LAYER] if self.layers.has_hidden else [])
        return reach(layers) + encoder.DEEP, encoder.DEEP  # upsampling reads the next cell

    def calibrate(self, backbone: Backbone, images: list[Tensor], but: frozenset[str]) -> None:
        if not self.released:
            self.layers.calibrate([self.encode(backbone, image, False) for image in images], but)
