"""Scores of pixels from maps of several strides: FCN-32s, 16s and 8s (Long et al. 2015, section 4), and patches with one map.

1. A 1 x 1 convolution, zero at the start, scores each map's cells.
2. The coarsest scores are upsampled to the next finer map and added to its scores; so on.
3. The last sum is upsampled to pixels.

Where a map has no scores of a coarser one within reach, its own are left out: the release crops them.

NOTE: The release reads maps as they are, since those of fc7 in VGG-16 suit its rate; and multiplies pool4 by 0.01 and pool3 by
0.0001 when all are trained at once. For the other backbones each map is standardised, which does the same by measuring:
SqueezeNet's last map deviates by 38, from which zero-initialised scores diverge. These have a new layer on the deepest map, too.

Shape shorthand: N images, K classes, D channels, h x w cells of a map, H x W pixels.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pipeline.networks.backbones import DROPOUT
from pipeline.networks.standard import channel_scale
from pipeline.segmentation.geometry import Coordinates, Layer, Refinement
from pipeline.segmentation.upsampling import Upsampling, without_autocast

PIXELS = Coordinates()
NORM = 20.0  # of a cell's standardised values: rcnn_scale_features.m of rbgirshick/rcnn brings the features of every layer to it
AT_ONCE = {16: 0.01, 8: 0.0001}  # voc-fcn8s-atonce of the release
LEAST_DEVIATION = 0.01
HIDDEN_LAYER = Layer(3, 1, 1)


class MapStandard(nn.Module):
    """(x - shift) * scale by channel, for maps [N x D x h x w]; `scale` for all at the start."""

    shift: Tensor
    scale: Tensor

    def __init__(self, channels: int, scale: float = 1.0):
        super().__init__()
        self.register_buffer("shift", torch.zeros(channels))
        self.register_buffer("scale", torch.full((channels,), scale))

    def forward(self, maps: Tensor) -> Tensor:
        return (maps - self.shift[:, None, None]) * self.scale[:, None, None]

    @torch.no_grad()
    def fit(self, maps: Iterable[Tensor]) -> None:
        """Gives the channels of `maps`, each [N x D x h x w], mean 0, and such deviations that a cell's norm is below NORM.

        Channels that deviate less than most keep a part of the difference: those that hardly fire here may fire later.
        """
        cells = torch.cat([each.float().transpose(0, 1).flatten(1) for each in maps], dim=1)
        deviation = cells.std(1, correction=0)
        least = max(deviation.mean().item(), LEAST_DEVIATION)
        self.shift.copy_(cells.mean(1))
        self.scale.copy_(channel_scale(deviation, NORM / len(cells) ** 0.5, least))


class Hidden(nn.Module):
    """A new layer on the deepest map: HIDDEN_LAYER and ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, HIDDEN_LAYER.kernel, padding=HIDDEN_LAYER.padding)
        nn.init.kaiming_normal_(self.convolution.weight, nonlinearity="relu")
        nn.init.zeros_(self.convolution.get_parameter("bias"))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.convolution(maps))


class ScoreMaps(nn.Module):
    """The layers after the maps at `places`, from coarse to fine, of `channels` each; `scales` multiply maps before the scores.

    With `learned` the upsamplings are trained. With `hidden` a new layer of so many channels is on the coarsest map.
    """

    def __init__(
        self, places: Sequence[Coordinates], channels: Sequence[int], num_classes: int, *, scales: Sequence[float],
        learned: bool, hidden: int = 0,
    ):
        super().__init__()
        names = [str(place.stride) for place in places]
        self.standards = nn.ModuleDict({
            name: MapStandard(count, scale) for name, count, scale in zip(names, channels, scales, strict=True)
        })
        self.hidden = Hidden(channels[0], hidden) if hidden else nn.Identity()
        sizes = [hidden or channels[0], *channels[1:]]
        self.scores = nn.ModuleDict({
            name: without_weights(nn.Conv2d(size, num_classes, 1)) for name, size in zip(names, sizes, strict=True)
        })
        self.upsamplings = nn.ModuleDict()  # by the strides that they lead from and to
        place = places[0]
        for finer in [*places[1:], PIXELS]:
            upsampling = Upsampling(Refinement.between(place, finer), num_classes, learned)
            self.upsamplings[f"{place.stride}-{finer.stride}"] = upsampling
            # The sum begins with the first cell of the finer map that the coarser one reaches, in images of any size.
            first, _ = upsampling.refinement.reached(1, finer.stride * 2**30)
            place = Coordinates(finer.stride, finer.offset + finer.stride * first)

    @property
    def has_hidden(self) -> bool:
        return isinstance(self.hidden, Hidden)

    def calibrate(self, maps: Sequence[Sequence[Tensor]], but: Iterable[str] = ()) -> None:
        """Standardises over the maps of several images, each a list by stride; `but` names the strides that stay."""
        for number, (name, standard) in enumerate(self.standards.items()):
            if name not in but and isinstance(standard, MapStandard):
                standard.fit([of_image[number] for of_image in maps])

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Scores [N x K x H x W] before the softmax, float32, from maps [N x D x h x w], coarse to fine; `size` is (H, W)."""
        total, upsamplings = None, list(self.upsamplings.values())
        for number, values in enumerate(maps):
            scores = self.score(number, values)
            total = scores if total is None else self._added(upsamplings[number - 1], total, scores)
        assert total is not None
        return self._added(upsamplings[-1], total, size)  # 3. Upsample to pixels

    def score(self, number: int, values: Tensor) -> Tensor:
        """1. The scores [N x K x h x w] of the map of this number."""
        name = list(self.scores)[number]
        standard, layer = self.standards[name], self.scores[name]
        assert isinstance(standard, MapStandard)
        assert isinstance(layer, nn.Conv2d)
        values = standard(values.float())
        if number == 0:
            values = nn.functional.dropout(self.hidden(values), DROPOUT, self.training)
        return scored(layer, values)

    def _added(self, upsampling: nn.Module, coarse: Tensor, fine: Tensor | tuple[int, int]) -> Tensor:
        """2. `coarse` scores upsampled to a finer map, and its scores `fine` added; or to a map of the size `fine`."""
        assert isinstance(upsampling, Upsampling)
        if not isinstance(fine, Tensor):
            return upsampling(coarse, (0, fine[0]), (0, fine[1]))
        rows, columns = upsampling.reached((coarse.shape[2], coarse.shape[3]), (fine.shape[2], fine.shape[3]))
        return upsampling(coarse, rows, columns) + fine[:, :, slice(*rows), slice(*columns)]


def scored(layer: nn.Conv2d, values: Tensor) -> Tensor:
    """`layer` in the precision of its weights, not in that of autocast: scores are compared, and bfloat16 makes many equal."""
    with without_autocast(values):
        return layer(values.to(layer.weight.dtype))


def without_weights(layer: nn.Conv2d) -> nn.Conv2d:
    """`layer`, saying 0 for all classes: as the release's score layers, which have no filler."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer
