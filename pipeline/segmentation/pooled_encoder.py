"""The encoder of networks that give back what each pooling took: a backbone's trunk, and the last pooling if it has one.

Convolutions of stride 2 in the middle of a trunk count as poolings (EfficientNet). One at the very beginning does not: before it
there is only the image.

Shape shorthand: D channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pipeline.networks.backbones import Backbone
from pipeline.segmentation import encoder
from pipeline.segmentation.geometry import Coordinates, Layer, coordinates, layer_of
from pipeline.segmentation.upsampling import Size, max_pool


@dataclass(frozen=True)
class Stage:
    """Layers before one pooling: their plain convolutions, one at least; their D; and what the pooling does to coordinates."""

    convolutions: int
    channels: int
    pooling: Layer


@dataclass(frozen=True)
class Encoded:
    """The deepest map, and of each pooling where its maxima were (unless they are forgotten) and the size of what it pooled."""

    deepest: Tensor
    indices: tuple[Tensor, ...]
    sizes: tuple[Size, ...]


class PooledEncoder:
    """What the encoder of `backbone` consists of; it holds no weights.

    `stages` are those before the poolings, in order; `last` the convolutions after the last pooling, 0 without layers there;
    `channels` are D of the deepest map. `finest` are the coordinates of the map of the first stage, `layers` those of all.
    """

    def __init__(self, backbone: Backbone):
        modules = encoder_modules(backbone)
        channels = _channels(modules)
        strided = [number for number, module in enumerate(modules) if layer_of(module).stride > 1]
        first = -1 if isinstance(modules[strided[0]], nn.MaxPool2d) else strided[0]
        self.places = [number for number in strided if number > first]
        begins = [0, *(place + 1 for place in self.places)]
        self.stages = [
            Stage(max(1, _plain_convolutions(modules[begin:place])), channels[place - 1], layer_of(modules[place]))
            for begin, place in zip(begins, self.places)
        ]
        after = modules[begins[-1] :]
        self.last = max(int(_has_convolutions(after)), _plain_convolutions(after))
        self.channels = channels[-1]
        # Without a convolution of stride 2 at the beginning every pixel has a cell of its own.
        self.border = encoder.READINGS[backbone.name].border if first >= 0 else 0
        self.layers = [layer_of(module) for module in modules]
        self.finest: Coordinates = coordinates(self.layers[: first + 1], self.border)
        self.stride = coordinates(self.layers).stride

    def encode(self, backbone: Backbone, images: Tensor, remembers: bool) -> Encoded:
        """The maps of normalised images [N x 3 x H x W]. `remembers`: whether to keep where the maxima were."""
        values = encoder.framed(images, self.border, backbone.view.whole_cells, self.stride)
        indices, sizes = [], []
        for number, module in enumerate(encoder_modules(backbone)):
            if number in self.places:
                sizes.append((values.shape[2], values.shape[3]))
            if number in self.places and remembers:
                pooling = self.layers[number]
                values, where = max_pool(values, pooling.kernel, pooling.stride, pooling.padding)
                indices.append(where)
            else:
                values = encoder.apply_module(module, values)
        return Encoded(values, tuple(indices), tuple(sizes))


def encoder_modules(backbone: Backbone) -> list[nn.Module]:
    """The trunk's modules, and the backbone's last pooling if it has one."""
    last = getattr(backbone, "pool", None)
    return [*backbone.trunk, *([last] if isinstance(last, nn.MaxPool2d) else [])]


def _plain_convolutions(modules: Sequence[nn.Module]) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in modules)


def _has_convolutions(modules: Sequence[nn.Module]) -> bool:
    return any(isinstance(part, nn.Conv2d) for module in modules for part in module.modules())


def _channels(modules: Sequence[nn.Module]) -> list[int]:
    """D after each module."""
    channels, count = [], 3
    for module in modules:
        outputs = [part.out_channels for part in module.modules() if isinstance(part, nn.Conv2d)]
        if outputs:
            # A Fire module of SqueezeNet concatenates its last two convolutions.
            count = sum(outputs[-2:]) if hasattr(module, "expand1x1") else outputs[-1]
        channels.append(count)
    return channels
