"""Backbones: a trunk that makes a map of an image, and what makes features of one region from the map.

A trunk alone serves what reads whole maps. For regions a grid of bins is pooled from the map (`pool5`), and layers follow one
after another: the fully connected `fc6` and `fc7`, or any module with `out_features` from one row a region to another.

Shape shorthand: N crops or regions, S side of a crop in pixels, D features of a layer, C channels of the map.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.networks.average_pooling import AveragingGrid, roi_align, roi_average
from pipeline.networks.region_head import RegionHead
from pipeline.networks.roi_pooling import roi_pool
from pipeline.networks.variants import ALIGN, AVERAGE, MAX, RESNETS, Variant

DROPOUT = 0.5  # Krizhevsky et al. 2012, section 4.2; also in rbgirshick/rcnn's fine-tuning networks
STRIDE = 16  # pixels per cell of the map, in all networks from R-CNN to Faster R-CNN


@dataclass(frozen=True)
class Normalisation:
    """A pixel's colours c in 0..255 become (c - `mean`) / `std`: [3], red, green, blue."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# Channel means and deviations of ImageNet's images: what torchvision's weights expect.
IMAGENET = Normalisation((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255))


@dataclass(frozen=True)
class MapView:
    """What the cells of a map look at: cell i at pixels about `stride` i + `centre` of an image with a `border` of 0.

    Pixels are normalised by `norm`. With `whole_cells` the border is at the left and above alone, and zeros at the other sides
    make the input a multiple of `stride`. With `standardise` new layers see the map's channels standardised
    (`pipeline.networks.standard`).
    """

    channels: int
    stride: int = STRIDE
    border: int = 0
    centre: float = 0
    norm: Normalisation = IMAGENET
    whole_cells: bool = False
    standardise: bool = False

    def framed(self, side: int) -> int:
        """How many pixels the network's input has along a side of the image; one cell's at least."""
        if self.whole_cells:
            return -(-(self.border + side) // self.stride) * self.stride
        return 2 * self.border + max(side, self.stride - 2 * self.border)


@dataclass(frozen=True)
class RegionLayers:
    """What makes features of regions from the map: `pool` to `grid` x `grid` bins, then `layers` by name, in order.

    `crop_size` is S, the side of the square crops that the network was made for. `pool` is for their maps.
    """

    crop_size: int
    grid: int
    pool: nn.Module
    layers: Mapping[str, nn.Module] = field(default_factory=dict)


class Backbone(nn.Module):
    """A `trunk`, from [N x 3 x H x W] normalised images to maps, and the layers of regions, where it has any.

    `sizes` maps each layer's name to D. The first `frozen` modules of the trunk are not trained on whole images. `name` may be
    that of a variant (`pipeline.networks.variants`) of the backbone `base`. `pooling` says how regions of a map are pooled.
    """

    def __init__(self, name: str, trunk: nn.Sequential, view: MapView, regions: RegionLayers | None = None, *, frozen: int = 0):
        super().__init__()
        self.name = self.base = name
        self.view, self.frozen, self.pooling = view, frozen, MAX
        self.trunk, self.fc, self.sizes = trunk, nn.ModuleDict(), OrderedDict()
        if regions:
            self.crop_size, self.grid, self.pool = regions.crop_size, regions.grid, regions.pool
            self.sizes["pool5"] = view.channels * regions.grid**2
            for layer, module in regions.layers.items():
                self.add_layer(layer, module)
        self.has_own_layers = bool(self.fc)  # trained with the trunk, unlike those that are added later

    @property
    def last_layer(self) -> str:
        return next(reversed(self.sizes))

    @property
    def region_head(self) -> RegionHead | None:
        """The layer of regions where that is convolutional: it makes a last map, and then features of it."""
        layers = list(self.fc.values())
        return layers[0] if len(layers) == 1 and isinstance(layers[0], RegionHead) else None

    def roi_pool(self, conv_map: Tensor, rois: np.ndarray) -> Tensor:
        """`pool5` [R x D grid grid] of `rois` [R x 4] (see `rois_of`) in the map [D x h x w] of their image."""
        pools: dict[str, Callable[..., Tensor]] = {
            MAX: roi_pool, AVERAGE: roi_average, ALIGN: partial(roi_align, centre=self.view.centre),
        }
        return pools[self.pooling](conv_map, rois, 1 / self.view.stride, self.grid).flatten(1)

    def add_layer(self, name: str, module: nn.Module) -> None:
        """Adds a layer after the last. `module` makes [N x D] of the last layer's rows and knows D as `out_features`."""
        self.fc[name] = module
        self.sizes[name] = module.out_features  # type: ignore[assignment]  # torch types each attribute as a tensor or a module

    def pool5(self, crops: Tensor) -> Tensor:
        """[N x 3 x S x S] normalised crops -> [N x D]."""
        return self.pool(self.trunk(crops)).flatten(1)

    def head(self, pool5: Tensor, layer: str) -> Tensor:
        """`layer` [N x D] from `pool5` [N x D]."""
        self.check_layer(layer)
        values = pool5
        for name, module in self.fc.items():
            if layer == "pool5":
                break
            values = module(values)
            if name == layer:
                break
        return values

    def forward(self, crops: Tensor, layer: str) -> Tensor:
        """[N x 3 x S x S] normalised crops -> `layer` [N x D]."""
        return self.head(self.pool5(crops), layer)

    def train(self, mode: bool = True) -> "Backbone":
        """NOTE: batch normalisation keeps its statistics: batches of one or two images have none to go by (He et al. 2016)."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def check_layer(self, layer: str) -> None:
        if layer not in self.sizes:
            raise PipelineError(f"backbone {self.name} has no layer {layer!r}; it has {', '.join(self.sizes)}")


def activated(values: Tensor, training: bool) -> Tensor:
    """What follows a fully connected layer: ReLU and, in training, dropout.

    NOTE: torchvision's AlexNet has its dropout before the layers; this is Caffe's placement, as in the release.
    """
    return nn.functional.dropout(nn.functional.relu(values), DROPOUT, training)


class FullyConnected(nn.Linear):
    """A fully connected layer with its ReLU and dropout."""

    @classmethod
    def of(cls, linear: nn.Linear) -> "FullyConnected":
        """With the weights of `linear` themselves."""
        layer = cls(linear.in_features, linear.out_features, device="meta")
        layer.weight, layer.bias = linear.weight, linear.bias
        return layer

    def forward(self, values: Tensor) -> Tensor:
        return activated(super().forward(values), self.training)


class PoolingGrid(nn.AdaptiveMaxPool2d):
    """Max pooling of maps to one size, with the same gradients in every run on a GPU too."""

    output_size: int

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps) if maps.device.type == "cpu" else self.by_indexing(maps)

    def by_indexing(self, maps: Tensor) -> Tensor:
        """Its gradients are sorted before they are added. NOTE: those of torch's own pooling are added as CUDA's threads come."""
        places = nn.functional.adaptive_max_pool2d(maps.detach(), self.output_size, return_indices=True)[1]
        images, channels = (torch.arange(size, device=maps.device) for size in maps.shape[:2])
        return maps.flatten(2)[images[:, None, None, None], channels[:, None, None], places]


def make_backbone(name: str) -> Backbone:
    """A backbone with random weights, drawn from torch's generator. Raises PipelineError for an unknown name."""
    variant = Variant.of(name)
    makers: dict[str, Callable[[Variant], Backbone]] = {
        "alexnet": _alexnet, "vgg16": _vgg16, "squeezenet1_0": _squeezenet, "efficientnet_lite0": _efficientnet,
        "mobilenet_v3_large": _mobilenet, **dict.fromkeys(RESNETS, _resnet), "tiny": _tiny,
    }
    backbone = makers[variant.base](variant)
    backbone.name, backbone.pooling = variant.name, variant.pooling
    return backbone


def _alexnet(variant: Variant) -> Backbone:
    # As CaffeNet in rbgirshick/fast-rcnn: conv1 is frozen, and the border is what its padded layers amount to.
    # NOTE: torchvision's is Krizhevsky's one-tower variant (2014): no groups, no LRN, unlike CaffeNet; pool5 is as large.
    from torchvision.models import alexnet  # here, because importing it takes two seconds, which `tiny` can do without

    model = alexnet()
    layers = {"fc6": FullyConnected.of(model.classifier[1]), "fc7": FullyConnected.of(model.classifier[4])}
    regions = RegionLayers(227, 6, model.features[-1], layers)
    return Backbone("alexnet", model.features[:-1], MapView(256, border=15), regions, frozen=3)


def _vgg16(variant: Variant) -> Backbone:
    # As in rbgirshick/fast-rcnn: conv1 and conv2 are frozen, no border.
    from torchvision.models import vgg16

    model = vgg16()
    layers = {"fc6": FullyConnected.of(model.classifier[0]), "fc7": FullyConnected.of(model.classifier[3])}
    regions = RegionLayers(224, 7, model.features[-1], layers)
    return Backbone("vgg16", model.features[:-1], MapView(512, centre=7.5), regions, frozen=10)


def _squeezenet(variant: Variant) -> Backbone:
    # The layers before stride 8 are frozen (conv1 to fire4), a third of all as in VGG-16.
    from torchvision.models import squeezenet1_0

    model = squeezenet1_0()
    view = MapView(512, border=17, standardise=True)
    return Backbone("squeezenet1_0", model.features, view, RegionLayers(227, 4, PoolingGrid(4)), frozen=7)


def _efficientnet(variant: Variant) -> Backbone:
    # The layers before stride 8 are frozen, as in SqueezeNet. A border of 15 makes cell i look at pixel 16 i.
    from pipeline.networks.efficientnet import make_parts

    norm = Normalisation((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
    view = MapView(112, border=15, norm=norm, whole_cells=True, standardise=True)
    return _with_head(variant, *make_parts(variant), view, frozen=4)


def _mobilenet(variant: Variant) -> Backbone:
    # The layers before stride 8 are frozen, as in EfficientNet-Lite0.
    from pipeline.networks.mobilenet import MAP_CHANNELS, make_parts

    return _with_head(variant, *make_parts(variant), MapView(MAP_CHANNELS, standardise=True), frozen=4)


def _resnet(variant: Variant) -> Backbone:
    # conv1 and conv2 are frozen, as in the ports of jwyang and endernewton (FIXED_BLOCKS = 1).
    from pipeline.networks.resnet import make_parts

    trunk, head = make_parts(variant)
    return _with_head(variant, trunk, head, MapView(head.channels, standardise=True), frozen=4)


def _with_head(variant: Variant, trunk: nn.Sequential, head: RegionHead, view: MapView, *, frozen: int) -> Backbone:
    """A backbone that was made for crops of 224 pixels, whose map of 14 x 14 cells is pooled as regions are."""
    pool = PoolingGrid(head.grid) if variant.pooling == MAX else AveragingGrid(head.grid)
    return Backbone(variant.base, trunk, view, RegionLayers(224, head.grid, pool, {"head": head}), frozen=frozen)


def _tiny(variant: Variant) -> Backbone:
    """Five convolutions as in AlexNet, for 64 x 64 crops: 7 million products, which train from nothing on two cores in a minute.

    The first is frozen on whole images. A cell of the map sees 107 x 107 pixels. Pooling comes before ReLU: the same values and
    gradients, with a quarter of the work.
    """
    trunk = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.MaxPool2d(2), nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True),
        nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(inplace=True),
    )
    for layer in trunk:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.get_parameter("bias"))
    regions = RegionLayers(64, 4, PoolingGrid(4), {"fc6": FullyConnected(128 * 16, 256)})
    return Backbone("tiny", trunk, MapView(128, border=7), regions, frozen=3)
