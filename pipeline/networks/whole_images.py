"""Whole images as a network's input, and the conv maps that a trunk makes of them (SPP-net section 2.1; Fast R-CNN section 2.1).

An image is scaled to a shorter side, as far as its longer side allows (`get_image_blob` of rbgirshick/fast-rcnn), and framed by
the border that makes cell i of the map look at pixels about `stride` i of the scaled image.

Shape shorthand: D channels, h x w cells of a map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.boxes import to_inclusive
from pipeline.images.resampling import resample
from pipeline.networks.backbones import Backbone, MapView


@dataclass(frozen=True)
class Scaling:
    """From an image's pixels to those of the scaled image: `size` is its (height, width), `factors` are those of (x, y).

    NOTE: the release scales boxes by one factor for both, though the sides of the scaled image are rounded.
    """

    size: tuple[int, int]
    factors: tuple[float, float]

    @classmethod
    def of(cls, height: int, width: int, shorter: int, longest: int) -> "Scaling":
        """The scaling to `shorter` pixels of the shorter side, but at most `longest` of the longer one."""
        factor = min(shorter / min(height, width), longest / max(height, width))
        size = max(1, round(height * factor)), max(1, round(width * factor))
        return cls(size, (size[1] / width, size[0] / height))

    def apply(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [N x 4] of the image, in the scaled image."""
        return boxes * np.array([*self.factors, *self.factors], np.float32)


def choose_scales(boxes: np.ndarray, scalings: Sequence[Scaling], crop_size: int) -> np.ndarray:
    """For each of `boxes` [n x 4] the position of the scaling at which its area comes closest to `crop_size` squared: [n]."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    scaled = areas[:, None] * np.array([scaling.factors[0] * scaling.factors[1] for scaling in scalings])
    return np.abs(scaled - crop_size**2).argmin(axis=1)


Light = tuple[np.ndarray, np.ndarray]  # gain and offset of each channel's normalised values, both [3]


def image_tensor(
    pixels: np.ndarray, scaling: Scaling, view: MapView, device: torch.device, *, mirror: bool = False,
    light: Light | None = None,
) -> Tensor:
    """The network's input, float32 [1 x 3 x H x W] in channels-last memory, of `pixels` (uint8 RGB [height x width x 3]).

    Resized as crops are (`resample`), without antialiasing as in the release; the border is 0. Images smaller than a cell
    are padded with 0, so that their map has one cell.
    """
    height, width = scaling.size
    border = view.border
    rows, columns = map(view.framed, scaling.size)
    # The padding is at the right, for mirrored images too.
    left = columns - border - width if mirror else border
    values = np.empty((1, rows, columns, 3), np.float32)
    geometry = np.array([[0, 0, pixels.shape[1], pixels.shape[0]]]), np.array([[left, border]]), np.array([[width, height]])
    mean, std = np.array(view.norm.mean), np.array(view.norm.std)
    if light is not None:
        gain, offset = light
        mean, std = mean - offset * std / gain, std / gain
    resample(pixels, geometry, np.array([mirror]), values, mean=mean, std=std)
    return torch.from_numpy(values).to(device).permute(0, 3, 1, 2)


def conv_map(
    backbone: Backbone, pixels: np.ndarray, scaling: Scaling, device: torch.device, *, mirror: bool = False,
    light: Light | None = None,
) -> Tensor:
    """The trunk's map [D x h x w] of one image, in the precision of the trunk's weights (or of autocast)."""
    dtype = next(backbone.trunk.parameters()).dtype
    return backbone.trunk(image_tensor(pixels, scaling, backbone.view, device, mirror=mirror, light=light).to(dtype))[0]


def rois_of(boxes: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Boxes [N x 4] of the image as the releases pass them to RoI pooling: scaled inclusive corners, float32 [N x 4]."""
    return scaling.apply(to_inclusive(np.asarray(boxes, np.float32)))


def mirror_boxes(boxes: np.ndarray, width: int) -> np.ndarray:
    """Boxes [N x 4] in the mirrored image of `width` pixels."""
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1).astype(boxes.dtype)


