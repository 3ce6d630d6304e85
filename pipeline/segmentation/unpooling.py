"""A decoder that mirrors its encoder and gives back what each pooling took: SegNet (Badrinarayanan et al. 2017).

1. Where layers follow the encoder's last pooling, the decoder begins with as many convolutions.
2. For each pooling, from the last to the first: upsample to the size of the map that was pooled, in one of the lecture's four
   ways. `unpool` puts values to where the encoder's maxima were.
3. Then come as many convolutions as the encoder's stage before this pooling has, one at least. The last makes the scores.
4. What convolutions of stride 2 or 4 at the beginning took is given back by a fixed bilinear transposed convolution, in all four
   ways: they remember no positions.

Convolutions are 3 x 3, each with batch normalisation and ReLU. All four ways have the same ones. A transposed convolution has one
learned kernel a channel, bilinear at the start. For poolings whose windows overlap, `nearest` and `bed-of-nails` are off by half
a cell.

NOTE: The releases train on batches of images of one size, and take the statistics of batch normalisation over all of them after
training. Here images have sizes of their own and come one at a time. The statistics of one image hide how it differs from others:
trained by them, networks said little but background when they were tested by the mean statistics. So the statistics are
taken once, before training, over several images, and kept; what each layer is scaled and shifted by is trained.

Shape shorthand: N images, K classes, D channels, H x W pixels.
"""

from collections.abc import Iterable
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


class KeptNorm(nn.BatchNorm2d):
    """Batch normalisation whose statistics stay what `take_statistics` made them, in training too.

    `seen` are the mean and variance of each image while they are taken.
    """

    def __init__(self, channels: int):
        super().__init__(channels)
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.eval()

    def train(self, mode: bool = True) -> "KeptNorm":
        return super().train(False)

    def keep(self) -> None:
        """Makes the means of what was seen the statistics."""
        if self.seen:
            self.running_mean, self.running_var = (torch.stack(values).mean(0) for values in zip(*self.seen))
        self.seen = []


class NormalisedConvolution(nn.Sequential):
    """3 x 3, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), KeptNorm(outputs), nn.ReLU(inplace=True))
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
            # The first stage's last convolution makes the scores.
            self.decoders.append(_convolutions(stage.channels, outputs, stage.convolutions - (number == 0)))
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
        """Standardises the deepest map, too, of backbones that are not the releases'."""
        encoded = [self.encode(backbone, image, False) for image in images]
        if not self.released:
            self.standard.fit(maps.deepest for maps in encoded)
        sizes = [(image.shape[2], image.shape[3]) for image in images]
        take_statistics(self, (self.decode(maps, size) for maps, size in zip(encoded, sizes)))

    def dependence(self, backbone: Backbone) -> tuple[int, int]:
        distance, cell = reach(self.encoder.layers), self.encoder.stride
        distance += cell * self.encoder.last
        for stage in reversed(self.encoder.stages):
            distance += cell  # upsampling reads the next cell
            cell //= stage.pooling.stride
            distance += cell * stage.convolutions
        return distance + cell, self.encoder.stride


def take_statistics(module: nn.Module, passes: Iterable) -> None:
    """Makes the statistics of all KeptNorms in `module` the means over `passes`, each of which runs it on one image.

    A map of a single cell has no deviation, and is left out.
    """
    norms = [part for part in module.modules() if isinstance(part, KeptNorm)]
    hooks = [norm.register_forward_hook(_by_own_statistics) for norm in norms]
    try:
        with torch.no_grad():
            for _ in passes:
                pass
    finally:
        for hook in hooks:
            hook.remove()
    for norm in norms:
        norm.keep()


def _by_own_statistics(norm: KeptNorm, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
    """What `norm` makes by the statistics of its input."""
    values = inputs[0].float()
    if values[:, 0].numel() == 1:
        return None
    mean, variance = values.mean((0, 2, 3)), values.var((0, 2, 3))
    norm.seen.append((mean, variance))
    return nn.functional.batch_norm(values, mean, variance, norm.weight, norm.bias, eps=norm.eps)


def _convolutions(inputs: int, outputs: int, count: int) -> nn.Sequential:
    """`count` convolutions, of which the last changes the number of channels."""
    sizes = [inputs] * count + [outputs] if count else []
    return nn.Sequential(*(NormalisedConvolution(*pair) for pair in pairwise(sizes)))
