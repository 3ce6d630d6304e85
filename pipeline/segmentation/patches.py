"""Patches: a window around every `patch_stride`-th pixel goes through the network alone, which names the class of its centre.

The lecture's first idea (Farabet et al. 2013; Pinheiro & Collobert 2014): windows share no features, and so most pixels go
through the conv layers many times. Pixels between get bilinear scores.

Window of centre c: the `window` pixels from c - window // 2 on; what is outside the image is 0.

Shape shorthand: N images, S side of a window, F features of one, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.networks.backbones import Backbone
from pipeline.segmentation.encoder import READINGS
from pipeline.segmentation.geometry import Coordinates
from pipeline.segmentation.layout import Layout
from pipeline.segmentation.score_maps import ScoreMaps

WINDOWS_AT_A_TIME = 64
STRIDES = {"tiny": 8}  # of other backbones 32: their windows take a hundred times as long


class Patches(nn.Module):
    """The scores of windows. `window` and `stride` are in pixels."""

    def __init__(self, backbone: Backbone, layout: Layout):
        super().__init__()
        self.window = layout.window or backbone.crop_size
        self.stride = layout.patch_stride or STRIDES.get(backbone.name, 32)
        size = backbone.sizes[backbone.last_layer]
        self.released = READINGS[backbone.name].released
        place = Coordinates(self.stride, self.stride // 2)
        self.layers = ScoreMaps([place], [size], layout.num_classes, scales=[1.0], learned=False)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """How many rows and columns of windows an image of `size` (H, W) has; one at least."""
        rows, columns = (max(1, -(-(side - self.stride // 2) // self.stride)) for side in size)
        return rows, columns

    def windows(self, images: Tensor, centres: Tensor) -> Tensor:
        """The windows [N x 3 x S x S] around `centres` [N x 2], rows and columns, of one image [1 x 3 x H x W]."""
        before = self.window // 2
        image = nn.functional.pad(images[0], (before, self.window, before, self.window))
        return torch.stack([image[:, y : y + self.window, x : x + self.window] for y, x in centres.tolist()])

    def features(self, backbone: Backbone, windows: Tensor) -> Tensor:
        """[N x F x 1 x 1] of windows [N x 3 x S x S]."""
        return backbone(windows, backbone.last_layer)[..., None, None]

    def encode(self, backbone: Backbone, images: Tensor, dropout: bool) -> list[Tensor]:
        """The features of all windows: [N x F x rows x columns]."""
        size = images.shape[2], images.shape[3]
        rows, columns = self.grid(size)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centres = torch.stack([y, x], dim=-1).flatten(0, 1) * self.stride + self.stride // 2
        parts = [
            self.features(backbone, self.windows(image, some))
            for image in images.split(1) for some in centres.split(WINDOWS_AT_A_TIME)
        ]
        return [torch.cat(parts).view(len(images), rows, columns, -1).permute(0, 3, 1, 2)]

    def decode(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        return self.layers(maps, size)

    def score(self, features: Tensor) -> Tensor:
        """[N x K] of `features` [N x F x 1 x 1]."""
        return self.layers.score(0, features)[:, :, 0, 0]

    def dependence(self, backbone: Backbone) -> tuple[int, int]:
        return self.window // 2 + self.stride, self.stride

    def calibrate(self, backbone: Backbone, images: list[Tensor], but: frozenset[str]) -> None:
        if not self.released:
            self.layers.calibrate([self.encode(backbone, image, False) for image in images], but)
