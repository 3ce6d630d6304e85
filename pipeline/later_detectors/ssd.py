"""SSD (Liu et al., ECCV 2016): default boxes of several maps are classified and moved in one pass.

1. The trunk makes maps of strides 8 and 16; more layers halve them down to one cell.
2. Each cell has default boxes of two sizes and several ratios (`default_boxes`).
3. In training each object takes its best free default box; further boxes belong to an object from an IoU of 0.5 on
   (`BipartiteMatcher`).
4. The loss is that of the positives, and of the three worst negatives for each of them, image by image (torchvision's).

NOTE: where torchvision's `ssd300_vgg16` differs from the release (ssd_pascal.py of weiliu89/caffe), this follows the release:
default boxes of VOC's sizes in place of COCO's, not clipped; no object loses its box to another; SSD512 has the release's layers.
Still different: images are resized with bilinear interpolation alone (the release draws one of five), and the new layers of the
trunk have one learning rate with the others.

Shape shorthand: N default boxes, M objects, C classes.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, ssd300_vgg16

from pipeline.errors import PipelineError
from pipeline.later_detectors.maps import TrunkMaps

OVERLAP = 0.5  # IoU from which on a default box belongs to an object
TOUCHES = 1e-6  # IoU that `MatchBBox` of the release takes for none
CANDIDATES = 400  # default boxes of a class that take part in suppression (ssd_pascal.py: top_k)
FROZEN = 10  # modules of VGG-16: conv1 and conv2 (ssd_pascal.py: freeze_layers)
# Mean of the release's weights (RGB); it divides by nothing.
MEAN, DEVIATION = (123 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3


@dataclass(frozen=True)
class BoxLayout:
    """The default boxes for images of `size` x `size`: for each map its smallest size, step and ratios.

    `sizes` has one more than there are maps: the larger size of a map is the mean of its size and the next.
    """

    size: int
    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    ratios: tuple[tuple[int, ...], ...]

    def generator(self) -> DefaultBoxGenerator:
        scales = [size / self.size for size in self.sizes]
        return DefaultBoxGenerator([list(some) for some in self.ratios], scales=scales, steps=list(self.steps), clip=False)


# ssd_pascal.py and ssd_pascal_512.py. The layer cuts sizes to whole numbers: 35.84 is 35.
FEW, MANY = (2,), (2, 3)
LAYOUTS = {
    300: BoxLayout(300, (30, 60, 111, 162, 213, 264, 315), (8, 16, 32, 64, 100, 300), (FEW, MANY, MANY, MANY, FEW, FEW)),
    512: BoxLayout(
        512, (35, 76, 153, 230, 307, 384, 460, 537), (8, 16, 32, 64, 128, 256, 512), (FEW, MANY, MANY, MANY, MANY, FEW, FEW),
    ),
}


def layout_of(size: int) -> BoxLayout:
    if size not in LAYOUTS:
        raise PipelineError(f"SSD has default boxes for images of {' or '.join(map(str, LAYOUTS))} pixels, not of {size}")
    return LAYOUTS[size]


class BipartiteMatcher:
    """The object of each default box, or -1, from the IoUs [M x N] of objects and boxes (`MatchBBox` of the release).

    1. Of all pairs of a free object and a free box the one with the largest IoU belongs together; repeated for all objects.
    2. Each other box belongs to its best object if their IoU is at least `OVERLAP`.

    NOTE: torchvision's SSDMatcher gives each object its best box at once, so that the first of two objects with the same best box
    loses it.
    """

    def __call__(self, overlaps: Tensor) -> Tensor:
        best, matches = overlaps.max(dim=0)
        matches = torch.where(best >= OVERLAP, matches, Matcher.BELOW_LOW_THRESHOLD)
        free = overlaps.clone()
        for _ in range(min(overlaps.shape)):
            object_, box = divmod(int(free.argmax()), free.shape[1])
            if free[object_, box] <= TOUCHES:  # an object that no box touches has none
                break
            matches[box] = object_
            free[object_], free[:, box] = -1, -1
        return matches


class ReleasedSSD(SSD):
    """torchvision's SSD with the release's default boxes and matching. `num_outputs` counts the background."""

    def __init__(self, trunk: nn.Module, size: int, num_outputs: int, **transform):
        generator = layout_of(size).generator()
        super().__init__(
            trunk, generator, (size, size), num_outputs, iou_thresh=OVERLAP, topk_candidates=CANDIDATES, **transform,
        )
        self.proposal_matcher = BipartiteMatcher()


class SSDTrunk(nn.Module):
    """The maps of SSD from one of our trunks: its maps of stride 8 and 16, and halved ones down to one cell.

    `channels` are those of most new maps; the first has twice as many, as in the paper.
    """

    def __init__(self, maps: TrunkMaps, size: int, channels: int):
        super().__init__()
        self.maps = maps
        num_new, inputs = len(layout_of(size).steps) - 2, maps.channels[-1]
        self.extra, self.out_channels = nn.ModuleList(), list(maps.channels)
        for number in range(num_new):
            outputs = channels if number else 2 * channels
            self.extra.append(_halving(inputs, outputs // 2, outputs, **_geometry(size, number)))
            self.out_channels.append(outputs)
            inputs = outputs
        for layer in self.extra.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.maps(images)
        for layers in self.extra:
            maps.append(layers(maps[-1]))
        return OrderedDict((str(number), values) for number, values in enumerate(maps))


def _geometry(size: int, number: int) -> dict:
    """The last convolution of the new map `number`: 10, 5, 3, 1 cells of 300 pixels; 16, 8, 4, 2, 1 cells of 512."""
    if size == 300:
        return {"kernel": 3, "stride": 2, "padding": 1} if number < 2 else {"kernel": 3, "stride": 1, "padding": 0}
    return {"kernel": 3, "stride": 2, "padding": 1} if number < 4 else {"kernel": 4, "stride": 1, "padding": 1}


def _halving(inputs: int, between: int, outputs: int, *, kernel: int, stride: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, between, 1), nn.ReLU(inplace=True),
        nn.Conv2d(between, outputs, kernel, stride, padding), nn.ReLU(inplace=True),
    )


def paper_trunk(size: int) -> nn.Module:
    """VGG-16 with fc6 and fc7 as dilated convolutions, as torchvision builds it; for 512 pixels one map more."""
    trunk = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=2).backbone
    trunk.features[:FROZEN].requires_grad_(False)
    if size == 512:
        new = [_halving(256, 128, 256, **_geometry(512, number)) for number in range(2, 5)]
        for layer in nn.ModuleList(new).modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.get_parameter("bias"))
        # NOTE: torchvision's own layers for 512 pixels end in maps of 6 and 4 cells, which the release does not have.
        trunk.extra = nn.ModuleList([*trunk.extra[:3], *new])
    return trunk


def released_ssd(trunk: nn.Module, size: int, num_outputs: int, mean: tuple, deviation: tuple) -> ReleasedSSD:
    return ReleasedSSD(trunk, size, num_outputs, image_mean=list(mean), image_std=list(deviation))
