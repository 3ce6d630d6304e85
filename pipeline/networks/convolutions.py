"""Convolutions of the deeper trunks, and batch normalisation that stays as it was trained.

A frozen batch normalisation is a scale and an offset per channel (He et al. 2016, appendix A). Here both belong to the
convolution before it, as buffers: they are loaded and saved, and no training changes them.

Shape shorthand: C channels.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

NORM_PARTS = ("weight", "bias", "running_mean", "running_var")  # tensors of a batch normalisation in files of weights


class Conv2d(nn.Conv2d):
    """A convolution. One per channel computes in the precision of its weights, in training too.

    On a CPU the gradients of 5 x 5 ones take four times as long in bfloat16 as in float32. They do a twentieth of all products.
    """

    def _conv_forward(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.groups == 1 or values.is_meta:  # autocast does not know that device
            return super()._conv_forward(values, weight, bias)
        with torch.autocast(values.device.type, enabled=False):
            return super()._conv_forward(values.to(weight.dtype), weight, bias)


class NormalisedConv2d(Conv2d):
    """A convolution and the frozen batch normalisation after it: x -> `scale` conv(x) + `offset`, both [C].

    The scale multiplies the weights, which is cheaper than multiplying every cell of a map. It stays out of the trained weights:
    EfficientNet-Lite0's scales differ by a factor of 1000. The same step would be too large for some weights and too small for
    others if they contained them.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **{**options, "bias": False})
        self.register_buffer("scale", torch.ones(self.out_channels))
        self.register_buffer("offset", torch.zeros(self.out_channels))

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> "NormalisedConv2d":
        """With the weights of `convolution`, which has no bias, the scale 1 and the offset 0."""
        assert convolution.bias is None
        layer = cls(
            convolution.in_channels, convolution.out_channels, convolution.kernel_size,  # type: ignore[arg-type]
            convolution.stride, convolution.padding, convolution.dilation, convolution.groups,  # type: ignore[arg-type]
            device="meta",
        )
        layer.weight = convolution.weight
        return layer

    def forward(self, values: Tensor) -> Tensor:
        return self._conv_forward(values, self.weight * self.scale[:, None, None, None], self.offset)


def freeze_norms(model: nn.Module) -> None:
    """Replaces each convolution and the batch normalisation after it, in place, by a `NormalisedConv2d` and the identity."""
    for module in list(model.modules()):
        for (name, layer), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(norm, nn.BatchNorm2d):
                assert isinstance(layer, nn.Conv2d)
                setattr(module, name, NormalisedConv2d.of(layer))
                setattr(module, norm_name, nn.Identity())


def draw_weights(modules: Iterable[nn.Module]) -> None:
    """Gives the convolutions among `modules` random weights that keep the size of values."""
    for module in modules:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def scale_and_offset(tensors: Mapping[str, Tensor], norm: str, epsilon: float) -> tuple[Tensor, Tensor]:
    """What the batch normalisation `norm` in a file's `tensors` comes to: float64 [C] twice."""
    factor, offset, mean, variance = (tensors[f"{norm}.{part}"].double() for part in NORM_PARTS)
    scale = factor / (variance + epsilon).sqrt()
    return scale, offset - mean * scale
