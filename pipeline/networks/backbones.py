"""Backbones: a trunk (image to conv map, stride 16), a pooling grid (map to `pool5`) and a head (`pool5` to `fc6`, `fc7`).

A network of R-CNN is a backbone and, for fine-tuning, one linear layer of C + 1 scores on its last layer.

Shape shorthand: N crops, S side of a crop in pixels, D features of a layer, C classes.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError

NAMES = ("alexnet", "vgg16", "squeezenet1_0", "tiny")

# Channel means and deviations of ImageNet's RGB images in 0..255: what torchvision's weights expect.
PIXEL_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
PIXEL_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)

DROPOUT = 0.5  # Krizhevsky et al. 2012, section 4.2; also in rbgirshick/rcnn's fine-tuning networks


class Backbone(nn.Module):
    """`trunk` and `pool` make `pool5`; `fc` holds the fully connected layers by name, each with its ReLU.

    `crop_size` is S, the side of the square crops that the network was made for. `pool5` has `channels` x `grid` x `grid` values;
    `sizes` maps each layer's name to D. For whole images: with `border` pixels of 0 around one, cell i of its map looks at pixels
    about 16 i + `centre`; the first `frozen` modules of the trunk are not trained.
    """

    def __init__(
        self, name: str, crop_size: int, trunk: nn.Module, pool: nn.Module, fc: dict[str, nn.Linear], *, channels: int, grid: int,
        border: int = 0, centre: float = 0, frozen: int = 0,
    ):
        super().__init__()
        self.name, self.crop_size, self.channels, self.grid = name, crop_size, channels, grid
        self.border, self.centre, self.frozen = border, centre, frozen
        self.trunk, self.pool, self.fc = trunk, pool, nn.ModuleDict(fc)
        self.sizes = OrderedDict(pool5=channels * grid**2, **{layer: linear.out_features for layer, linear in fc.items()})
        self.has_new_layer = False  # whether `fc` holds one that `add_layer` made

    @property
    def last_layer(self) -> str:
        return next(reversed(self.sizes))

    def add_layer(self, name: str, size: int) -> None:
        """Adds a fully connected layer of `size` values after the last, with random weights."""
        self.fc[name] = nn.Linear(self.sizes[self.last_layer], size)
        self.sizes[name] = size
        self.has_new_layer = True

    def pool5(self, crops: Tensor) -> Tensor:
        """[N x 3 x S x S] normalised crops -> [N x D]."""
        return self.pool(self.trunk(crops)).flatten(1)

    def head(self, pool5: Tensor, layer: str) -> Tensor:
        """`layer` [N x D] from `pool5`. In training, dropout follows every fully connected layer.

        NOTE: torchvision's AlexNet has its dropout before the layers; this is Caffe's placement, as in the release.
        """
        self.check_layer(layer)
        values = pool5
        for name, linear in self.fc.items():
            if layer == "pool5":
                break
            values = nn.functional.dropout(nn.functional.relu(linear(values)), DROPOUT, self.training)
            if name == layer:
                break
        return values

    def forward(self, crops: Tensor, layer: str) -> Tensor:
        """[N x 3 x S x S] normalised crops -> `layer` [N x D]."""
        return self.head(self.pool5(crops), layer)

    def check_layer(self, layer: str) -> None:
        if layer not in self.sizes:
            raise PipelineError(f"backbone {self.name} has no layer {layer!r}; it has {', '.join(self.sizes)}")


class PoolingGrid(nn.AdaptiveMaxPool2d):
    """Max pooling of maps to one size, with the same gradients in every run on a GPU too."""

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps) if maps.device.type == "cpu" else self.by_indexing(maps)

    def by_indexing(self, maps: Tensor) -> Tensor:
        """Its gradients are sorted before they are added. NOTE: those of torch's own pooling are added as CUDA's threads come."""
        places = nn.functional.adaptive_max_pool2d(maps.detach(), self.output_size, return_indices=True)[1]
        images, channels = (torch.arange(size, device=maps.device) for size in maps.shape[:2])
        return maps.flatten(2)[images[:, None, None, None], channels[:, None, None], places]


class OutputLayers(nn.Module):
    """A backbone and linear layers on its last layer, in training: R-CNN's classifier, Fast R-CNN's two.

    A backbone without fully connected layers has the first new layer on `pool5`, that is with `hidden` a new one called `fc6` of
    so many values, else the outputs. No classifier was ever trained on such a `pool5`: its norm is in the thousands and its mean
    far from 0, at which the releases' learning rates diverge or get nowhere. `calibrate` standardises its channels; a new layer
    that was trained before goes on from where it was.
    """

    NORM = 20.0  # rcnn_scale_features.m of rbgirshick/rcnn brings the features of every layer to it

    def __init__(self, backbone: Backbone, hidden: int = 0):
        super().__init__()
        self.backbone, self.starts_on_pool5 = backbone, not backbone.fc or backbone.has_new_layer
        self.is_folded = backbone.has_new_layer
        if hidden and not backbone.fc:
            backbone.add_layer("fc6", hidden)
        self.register_buffer("shift", None)
        self.register_buffer("scale", None)

    def output_layer(self, num_outputs: int, std: float) -> nn.Linear:
        """A new layer whose weights are normal with deviation `std`."""
        layer = nn.Linear(self.backbone.sizes[self.backbone.last_layer], num_outputs)
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
        return layer

    def calibrate(self, pool5: Tensor) -> None:
        """Has the first new layer, where it is on `pool5`, see channels of mean 0 and one deviation over these [N x D].

        The deviation is such that the norm of all D values is 20.
        """
        if self.starts_on_pool5:
            values = pool5.float().unflatten(1, (self.backbone.channels, -1))
            deviation = values.std((0, 2))
            # A channel that hardly ever fires would be blown up.
            scale = self.NORM / pool5.shape[1] ** 0.5 / (deviation + 0.01 * deviation.mean())
            self.shift, self.scale = (each.repeat_interleave(values.shape[2]) for each in (values.mean((0, 2)), scale))
            if self.is_folded:  # the same function of pool5 as before
                with torch.no_grad():
                    for layer in self._on_pool5():
                        layer.bias += layer.weight @ self.shift
                        layer.weight /= self.scale
                self.is_folded = False

    def fold_calibration(self) -> None:
        """Moves what `calibrate` found into the weights of the layers on `pool5`, which then apply to it as it is."""
        if self.shift is not None:
            with torch.no_grad():
                for layer in self._on_pool5():
                    layer.weight *= self.scale
                    layer.bias -= layer.weight @ self.shift
            self.shift = self.scale = None
            self.is_folded = True

    def _on_pool5(self) -> list[nn.Linear]:
        """The layers that apply to `pool5`, where none was trained on it before."""
        return list(self.backbone.fc.values()) or [layer for layer in self.children() if isinstance(layer, nn.Linear)]

    def last_layer(self, pool5: Tensor) -> Tensor:
        """What the output layers are applied to, from `pool5` [N x D]."""
        if self.shift is not None:
            pool5 = (pool5 - self.shift) * self.scale
        if self.backbone.fc:
            return self.backbone.head(pool5, self.backbone.last_layer)
        return nn.functional.dropout(pool5, DROPOUT, self.training)


class Classifier(OutputLayers):
    """R-CNN's network in fine-tuning: a score for each class, the background being class 0."""

    def __init__(self, backbone: Backbone, num_outputs: int):
        super().__init__(backbone)
        self.scores = self.output_layer(num_outputs, 0.01)  # fc8_pascal in pascal_finetune_train.prototxt of rbgirshick/rcnn

    def forward(self, crops: Tensor) -> Tensor:
        """[N x 3 x S x S] -> scores [N x num_outputs], before the softmax."""
        return self.scores(self.last_layer(self.backbone.pool5(crops)))


def make_backbone(name: str) -> Backbone:
    """A backbone with random weights, drawn from torch's generator. Raises PipelineError for an unknown name."""
    if name not in NAMES:
        raise PipelineError(f"backbone {name!r} is none of {', '.join(NAMES)}")
    return {"alexnet": _alexnet, "vgg16": _vgg16, "squeezenet1_0": _squeezenet, "tiny": _tiny}[name]()


def _alexnet() -> Backbone:
    # As CaffeNet in rbgirshick/fast-rcnn: conv1 is frozen, and the border is what its padded layers amount to.
    # NOTE: torchvision's is Krizhevsky's one-tower variant (2014): no groups, no LRN, unlike CaffeNet; pool5 is as large.
    from torchvision.models import alexnet  # here, because importing it takes two seconds, which `tiny` can do without

    model = alexnet()
    fc = {"fc6": model.classifier[1], "fc7": model.classifier[4]}
    return Backbone("alexnet", 227, model.features[:-1], model.features[-1], fc, channels=256, grid=6, border=15, frozen=3)


def _vgg16() -> Backbone:
    # As in rbgirshick/fast-rcnn: conv1 and conv2 are frozen, no border.
    from torchvision.models import vgg16

    model = vgg16()
    fc = {"fc6": model.classifier[0], "fc7": model.classifier[3]}
    return Backbone("vgg16", 224, model.features[:-1], model.features[-1], fc, channels=512, grid=7, centre=7.5, frozen=10)


def _squeezenet() -> Backbone:
    # The layers before stride 8 are frozen (conv1 to fire4), a third of all as in VGG-16.
    from torchvision.models import squeezenet1_0

    model = squeezenet1_0()
    return Backbone("squeezenet1_0", 227, model.features, PoolingGrid(4), {}, channels=512, grid=4, border=17, frozen=7)


def _tiny() -> Backbone:
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
            nn.init.zeros_(layer.bias)
    fc = {"fc6": nn.Linear(128 * 16, 256)}
    return Backbone("tiny", 64, trunk, PoolingGrid(4), fc, channels=128, grid=4, border=7, frozen=3)
