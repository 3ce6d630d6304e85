"""An encoder and a mirrored decoder, which gives back what each pooling took: SegNet (Badrinarayanan et al. 2017).

The encoder is the trunk and, where the backbone has one after it, the last pooling. The decoder, from the deepest map on:

1. For each pooling, from the last to the first: upsample to the size of the map that was pooled, in one of the lecture's four
   ways. `unpool` puts values to where the encoder's maxima were.
2. Then as many 3 x 3 convolutions as the encoder's stage before this pooling has, one at least, each with batch normalisation and
   ReLU. Where layers follow the last pooling, the decoder begins with theirs. The last convolution makes the scores.
3. What convolutions of stride 2 or 4 at the beginning took is given back by a fixed bilinear transposed convolution, in all four
   ways: they remember no positions.

All four ways have the same convolutions. A transposed convolution has one learned kernel a channel, bilinear at the start. For
poolings whose windows overlap, `nearest` and `bed-of-nails` are off by half a cell.

NOTE: In training batch normalisation goes by the statistics of one image, since images have sizes of their own. After it one pass
over the training images fixes the statistics, as in the releases of SegNet and DeconvNet.

Shape shorthand: N images, K classes, D channels, H x W pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.networks.backbones import Backbone
from pipeline.segmentation import encoder
from pipeline.segmentation.geometry import Coordinates, Layer, Refinement, coordinates, layer_of
from pipeline.segmentation.layout import BED_OF_NAILS, NEAREST, TRANSPOSED, Layout
from pipeline.segmentation.score_maps import PIXELS, MapStandard
from pipeline.segmentation.upsampling import Size, Upsampling, bed_of_nails, max_pool, nearest, unpool


@dataclass(frozen=True)
class Stage:
    """Layers of the encoder before one downsampling, `pooling`: their number of plain convolutions, and their channels D."""

    convolutions: int
    channels: int
    pooling: Layer


@dataclass(frozen=True)
class Encoded:
    """The deepest map, and of each pooling where its maxima were (without unpooling: none) and the size of what it pooled."""

    deepest: Tensor
    indices: tuple[Tensor, ...]
    sizes: tuple[Size, ...]


class NormalisedConvolution(nn.Sequential):
    """3 x 3, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), BatchNorm(outputs), nn.ReLU(inplace=True))
        nn.init.kaiming_normal_(self[0].get_parameter("weight"), nonlinearity="relu")


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation. A map of a single cell has no deviation: it goes by the statistics so far."""

    def forward(self, values: Tensor) -> Tensor:
        if self.training and values[:, 0].numel() == 1:
            return nn.functional.batch_norm(values, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(values)


def encoder_modules(backbone: Backbone) -> list[nn.Module]:
    """The trunk's modules, and the backbone's last pooling if it has one."""
    last = getattr(backbone, "pool", None)
    return [*backbone.trunk, *([last] if isinstance(last, nn.MaxPool2d) else [])]


def downsamplings(modules: list[nn.Module]) -> list[int]:
    """The numbers of the modules that make a map coarser."""
    return [number for number, module in enumerate(modules) if layer_of(module).stride > 1]


class Unpooling(nn.Module):
    """The decoder."""

    def __init__(self, backbone: Backbone, layout: Layout):
        super().__init__()
        self.upsampling, self.remembers = layout.upsampling, layout.remembers
        modules = encoder_modules(backbone)
        channels = _channels(modules)
        places = downsamplings(modules)
        # A strided first convolution has no map of a backbone before it, only the image.
        first = places[0] if not isinstance(modules[places[0]], nn.MaxPool2d) else -1
        self.places = [place for place in places if place > first]
        self.border, self.whole_cells = encoder.READINGS[backbone.name].border, backbone.view.whole_cells
        if first < 0:
            self.border = 0  # every pixel has its own cell
        stages = self._stages(modules, channels)
        self.stages = stages
        after = modules[self.places[-1] + 1 :]
        count = max(_plain_convolutions(after), 1) if any(isinstance(part, nn.Conv2d) for m in after for part in m.modules()) else 0
        self.standard = MapStandard(channels[-1])
        self.bridge = _convolutions(channels[-1], stages[-1].channels, count)
        self.decoders, self.upsamplings = nn.ModuleList(), nn.ModuleList()
        for number, stage in reversed(list(enumerate(stages))):
            if layout.upsampling == TRANSPOSED:
                refinement = Refinement.between(Coordinates().after(stage.pooling), Coordinates())
                self.upsamplings.append(Upsampling(refinement, stage.channels, learned=True))
            outputs = stages[number - 1].channels if number else stage.channels
            self.decoders.append(_convolutions(stage.channels, outputs, stage.convolutions - (number == 0)))
        self.scores = nn.Conv2d(stages[0].channels, layout.num_classes, 3, padding=1)
        nn.init.zeros_(self.scores.weight)
        nn.init.zeros_(self.scores.get_parameter("bias"))
        place = coordinates([layer_of(module) for module in modules[: first + 1]], self.border)
        self.to_pixels = Upsampling(Refinement.between(place, PIXELS), layout.num_classes, learned=False)

    def _stages(self, modules: list[nn.Module], channels: list[int]) -> list[Stage]:
        begins = [0, *(place + 1 for place in self.places)]
        return [
            Stage(max(_plain_convolutions(modules[begin:place]), 1), channels[place - 1], layer_of(modules[place]))
            for begin, place in zip(begins, self.places)
        ]

    def encode(self, backbone: Backbone, images: Tensor, dropout: bool) -> Encoded:
        stride = 2 ** len(self.places) * self.to_pixels.refinement.factor
        values = encoder.framed(images, self.border, self.whole_cells, stride)
        indices, sizes = [], []
        for number, module in enumerate(encoder_modules(backbone)):
            if number in self.places:
                sizes.append((values.shape[2], values.shape[3]))
            if number in self.places and self.remembers:
                pooling = layer_of(module)
                values, where = max_pool(values, pooling.kernel, pooling.stride, pooling.padding)
                indices.append(where)
            else:
                values = encoder.apply_module(module, values)
        return Encoded(values, tuple(indices), tuple(sizes))

    def decode(self, maps: Encoded, size: Size) -> Tensor:
        values = self.bridge(self.standard(maps.deepest.float()))
        for number, (decoder, finer) in enumerate(zip(self.decoders, reversed(maps.sizes), strict=True)):
            values = decoder(self._upsampled(values, maps, number, finer))
        scores = self.scores(values).float()
        # Without a border and a strided convolution the last map has the size of the image.
        return self.to_pixels(scores, (0, size[0]), (0, size[1]))

    def _upsampled(self, values: Tensor, maps: Encoded, number: int, size: Size) -> Tensor:
        """1. `values` as large as what the pooling of this number, from the last on, had pooled."""
        pooling = self.stages[-1 - number].pooling
        if self.remembers:
            return unpool(values, maps.indices[-1 - number], size, overlaps=pooling.kernel > pooling.stride)
        if self.upsampling == TRANSPOSED:
            return self.upsamplings[number](values, (0, size[0]), (0, size[1]))
        return {NEAREST: nearest, BED_OF_NAILS: bed_of_nails}[self.upsampling](values, pooling.stride, size)

    def calibrate(self, backbone: Backbone, images: list[Tensor], but: frozenset[str]) -> None:
        if backbone.view.standardise:
            self.standard.fit(self.encode(backbone, image, False).deepest for image in images)


def settle_statistics(module: nn.Module, passes: Iterable) -> None:
    """Makes the statistics of all batch normalisation the means over `passes`, each of which runs the network on one image."""
    norms = [part for part in module.modules() if isinstance(part, BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the mean over all
        norm.train()
    with torch.no_grad():
        for _ in passes:
            pass
    for norm in norms:
        norm.eval()


def _convolutions(inputs: int, outputs: int, count: int) -> nn.Sequential:
    """`count` convolutions, of which the last changes the number of channels."""
    sizes = [inputs] * count + [outputs] if count else []
    return nn.Sequential(*(NormalisedConvolution(*pair) for pair in zip(sizes, sizes[1:])))


def _plain_convolutions(modules: list[nn.Module]) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in modules)


def _channels(modules: list[nn.Module]) -> list[int]:
    """The channels after each module."""
    channels = []
    for module in modules:
        convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
        outputs = [part.out_channels for part in convolutions]
        # A Fire module of SqueezeNet concatenates its last two convolutions.
        is_fire = hasattr(module, "expand1x1")
        channels.append(sum(outputs[-2:]) if is_fire else outputs[-1] if outputs else channels[-1] if channels else 3)
    return channels
