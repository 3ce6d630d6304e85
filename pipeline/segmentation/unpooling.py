"""A decoder that mirrors its encoder and gives back what each pooling took: SegNet (Badrinarayanan et al. 2017).

1. Where layers follow the encoder's last pooling, the decoder begins with as many convolutions.
2. For each pooling, from the last to the first: upsample to the size of the map that was pooled, in one of the lecture's four
   ways. `unpool` puts values to where the encoder's maxima were.
3. Then come as many convolutions as the encoder's stage before this pooling has, one at least. After the first stage's pooling
   the last of them makes the scores, and at least one comes before it: values between zeros say nothing of the pixels around.
4. What convolutions of stride 2 or 4 at the beginning took is given back by a fixed bilinear transposed convolution, in all four
   ways: they remember no positions.

Convolutions are 3 x 3, each with normalisation and ReLU. All four ways have the same ones. A transposed convolution has one
learned kernel a channel, bilinear at the start. For poolings whose windows overlap, `nearest` and `bed-of-nails` are off by half
a cell.

NOTE: The releases have batch normalisation: by the statistics of a batch of images of one size, and after training by those of
the training set. Here images have sizes of their own and come one at a time, and each goes by its own statistics, in training and
after. With statistics that were taken once and kept, unpooling learned next to nothing: values between zeros make gradients
small, so the decoder needs a rate 200 times the encoder's, and such a rate needs a normalisation that follows. Group
normalisation learned more slowly.

Shape shorthand: N images, K classes, D channels, H x W pixels.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from pipeline.networks.backbones import Backbone
from pipeline.segmentation.encoder import READINGS
from pipeline.segmentation.geometry import Coordinates, Refinement, reach
from pipeline.segmentation.layout import BED_OF_NAILS, NEAREST, TRANSPOSED, Layout
from pipeline.segmentation.pooled_encoder import Encoded, PooledEncoder
from pipeline.segmentation.score_maps import PIXELS, MapStandard, scored, without_weights
from pipeline.segmentation.upsampling import Size, Upsampling, bed_of_nails, nearest, unpool


class ImageNorm(nn.Module):
    """Gives each channel of each image mean 0 and deviation 1, then multiplies by a weight and adds a bias [D each].

    A map of a single cell, which has no deviation, keeps its values.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, values: Tensor) -> Tensor:
        if values.shape[2] * values.shape[3] == 1:
            return values * self.weight[:, None, None] + self.bias[:, None, None]
        return nn.functional.instance_norm(values, weight=self.weight, bias=self.bias)


class NormalisedConvolution(nn.Sequential):
    """3 x 3, normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), ImageNorm(outputs), nn.ReLU(inplace=True))
        nn.init.kaiming_normal_(self[0].get_parameter("weight"), nonlinearity="relu")  # MSRA, as in SegNet's release


class Unpooling(nn.Module):
    """The decoder."""

    def __init__(self, backbone: Backbone, layout: Layout):
        super().__init__()
        self.upsampling, self.remembers = layout.upsampling, layout.remembers
        self.encoder, self.released = PooledEncoder(backbone), READINGS[backbone.name].released
        stages = self.encoder.stages
        self.standard = MapStandard(self.encoder.channels)
        self.beginning = _convolutions(self.encoder.channels, stages[-1].channels, self.encoder.last)
        self.decoders, self.upsamplings = nn.ModuleList(), nn.ModuleList()
        for number, stage in reversed(list(enumerate(stages))):
            if layout.upsampling == TRANSPOSED:
                refinement = Refinement.between(Coordinates().after(stage.pooling), Coordinates())
                self.upsamplings.append(Upsampling(refinement, stage.channels, learned=True))
            outputs = stages[number - 1].channels if number else stage.channels
            # The first stage's last convolution makes the scores, from what one before it has made of the upsampled values.
            self.decoders.append(_convolutions(stage.channels, outputs, max(1, stage.convolutions - (number == 0))))
        self.scores = without_weights(nn.Conv2d(stages[0].channels, layout.num_classes, 3, padding=1))
        self.to_pixels = Upsampling(Refinement.between(self.encoder.finest, PIXELS), layout.num_classes, learned=False)

    def encode(self, backbone: Backbone, images: Tensor, dropout: bool) -> Encoded:
        return self.encoder.encode(backbone, images, self.remembers)

    def decode(self, maps: Encoded, size: Size) -> Tensor:
        values = self.beginning(self.standard(maps.deepest.float()))  # 1. Layers after the last pooling
        for number, (decoder, finer) in enumerate(zip(self.decoders, reversed(maps.sizes), strict=True)):
            values = decoder(self._upsampled(values, maps, number, finer))  # 3. Convolve
        scores = scored(self.scores, values)
        return self.to_pixels(scores, (0, size[0]), (0, size[1]))  # 4. Upsample to pixels

    def _upsampled(self, values: Tensor, maps: Encoded, number: int, size: Size) -> Tensor:
        """2. `values` as large as what the pooling of this number, from the last on, had pooled."""
        pooling = self.encoder.stages[-1 - number].pooling
        if self.remembers:
            return unpool(values, maps.indices[-1 - number], size, overlaps=pooling.kernel > pooling.stride)
        if self.upsampling == TRANSPOSED:
            return self.upsamplings[number](values, (0, size[0]), (0, size[1]))
        return {NEAREST: nearest, BED_OF_NAILS: bed_of_nails}[self.upsampling](values, pooling.stride, size)

    def calibrate(self, backbone: Backbone, images: list[Tensor], but: frozenset[str]) -> None:
        """Standardises the deepest map of backbones that are not the releases'."""
        if not self.released:
            self.standard.fit(self.encode(backbone, image, False).deepest for image in images)

    def dependence(self, backbone: Backbone) -> tuple[int, int]:
        distance, cell = reach(self.encoder.layers), self.encoder.stride
        distance += cell * self.encoder.last
        for stage, decoder in zip(reversed(self.encoder.stages), self.decoders, strict=True):
            distance += cell  # upsampling reads the next cell
            cell //= stage.pooling.stride
            distance += cell * len(list(decoder.children()))
        distance += cell  # the scores' convolution
        return distance + cell, self.encoder.stride


def _convolutions(inputs: int, outputs: int, count: int) -> nn.Sequential:
    """`count` convolutions, of which the last changes the number of channels."""
    sizes = [inputs] * count + [outputs] if count else []
    return nn.Sequential(*(NormalisedConvolution(*pair) for pair in pairwise(sizes)))
