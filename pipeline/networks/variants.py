"""The names of backbones and of their variants: how regions are pooled, and what the first convolutions of a region do.

`resnet50+grid14+stride1+align` is ResNet-50 whose regions are pooled to 14 x 14 bins by RoIAlign, and whose conv5 keeps the
resolution. Needs no torch.
"""

from dataclasses import dataclass

from pipeline.errors import PipelineError

RESNETS = ("resnet18", "resnet50", "resnet101")
CONVOLUTIONAL = ("efficientnet_lite0", "mobilenet_v3_large", *RESNETS)  # with convolutions for each region
NAMES = ("alexnet", "vgg16", "squeezenet1_0", *CONVOLUTIONAL, "tiny")
MAX, AVERAGE, ALIGN = POOLINGS = "max", "average", "align"
GRIDS, STRIDES = (7, 14), (1, 2)
# NOTE: He et al. 2016 do not state the grid; Detectron pools 14 x 14 bins, which conv5 halves. 7 x 7 bins, halved as in
# jwyang/faster-rcnn.pytorch, take a third of the products.
REGION_GRID, REGION_STRIDE = 7, 2
# The last convolution of their map has no ReLU, and so the largest value of a bin says little.
AVERAGED = ("efficientnet_lite0", "mobilenet_v3_large")


@dataclass(frozen=True)
class Variant:
    """The backbone `base`, and for regions: bins a side, stride of the first convolutions, and how a bin is made (POOLINGS)."""

    base: str
    grid: int = REGION_GRID
    stride: int = REGION_STRIDE
    pooling: str = MAX

    @classmethod
    def of(cls, name: str) -> "Variant":
        """The variant with this name. Raises PipelineError, saying what is possible, for an unknown one."""
        base, *options = name.split("+")
        if base not in NAMES:
            raise PipelineError(f"backbone {name!r} is none of {', '.join(NAMES)}")
        possible: dict[str, tuple[str, int | str]] = {pooling: ("pooling", pooling) for pooling in POOLINGS}
        if base in CONVOLUTIONAL:
            possible |= {f"grid{grid}": ("grid", grid) for grid in GRIDS}
            possible |= {f"stride{stride}": ("stride", stride) for stride in STRIDES}
        chosen: dict[str, int | str] = {}
        for option in options:
            if option not in possible:
                raise PipelineError(f"backbone {name!r}: {base} has no variant {option!r}; it has {', '.join(sorted(possible))}")
            key, value = possible[option]
            if key in chosen:
                raise PipelineError(f"backbone {name!r} says its {key} twice; give it once")
            chosen[key] = value
        return cls(base, **{"pooling": _default_pooling(base), **chosen})  # type: ignore[arg-type]  # the kinds are mixed

    @property
    def last_side(self) -> int:
        """The cells a side of a region's last map."""
        return -(-self.grid // self.stride)

    @property
    def name(self) -> str:
        """The shortest name, the same for equal variants."""
        parts = [self.base]
        parts += [f"grid{self.grid}"] * (self.grid != REGION_GRID) + [f"stride{self.stride}"] * (self.stride != REGION_STRIDE)
        return "+".join(parts + [self.pooling] * (self.pooling != _default_pooling(self.base)))


def base_of(name: str) -> str:
    """The backbone of which `name` is a variant."""
    return name.partition("+")[0]


def _default_pooling(base: str) -> str:
    return AVERAGE if base in AVERAGED else MAX
