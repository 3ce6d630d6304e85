"""Photographs and regions of them as JPEG files."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image

from pipeline.networks.backbones import Backbone, make_backbone
from pipeline.networks.without_weights import without_weights
from pipeline.report.embedding import JPEG_QUALITY, crop
from pipeline.report.story import warped_crops


def photo_jpeg(pixels: np.ndarray, longest_side: int) -> bytes:
    """uint8 RGB `pixels` [H x W x 3], shrunk to `longest_side` pixels where larger."""
    image = Image.fromarray(pixels)
    image.thumbnail((longest_side, longest_side), Image.Resampling.BILINEAR)
    return _jpeg(image)


def crop_jpeg(pixels: np.ndarray, box: np.ndarray, side: int) -> bytes:
    """What `box` [4] shows, its longer side `side` pixels."""
    return _jpeg(Image.fromarray(crop(pixels, box, side)))


def warped_jpeg(pixels: np.ndarray, box: np.ndarray, backbone: str, padding: int) -> bytes:
    """The crop of `box` as R-CNN's network sees it, with `padding` pixels of context in a crop of 227."""
    return _jpeg(Image.fromarray(warped_crops(pixels, box[None], _backbone(backbone), padding)[0]))


@lru_cache(maxsize=1)
def _backbone(name: str) -> Backbone:
    with without_weights():
        return make_backbone(name)


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "jpeg", quality=JPEG_QUALITY)
    return file.getvalue()
