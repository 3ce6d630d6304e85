"""Selective search (Uijlings et al. 2013) by the package `selectivesearch` 0.4, several times, in diverse ways.

The package segments an image (Felzenszwalb and Huttenlocher 2004), then merges the two most similar regions again and again. One
grouping finds about 60 % of the objects of PASCAL VOC at IoU 0.5; merging groupings of several colour spaces and segmentation
scales is what makes proposals of it (section 3.2, "diversification strategies").

NOTE: where the package departs from the paper and from the release (`Image2HierarchicalGrouping.m`):
- its rectangles are one pixel short (largest minus smallest pixel index): mended here;
- regions are neighbours when one bounding box has a corner strictly inside the other, though their pixels need not touch; regions
  side by side may count as strangers, and a hierarchy may then end in several trees instead of one;
- of the colour histogram only the brightness (largest of the three channels) distinguishes regions: hue and saturation are in
  [0, 1], the histogram's range is [0, 255];
- texture is a histogram of local binary patterns whose range [0, 1] holds 2 of the 256 patterns, so it says hardly anything;
- each grouping uses all four similarities (colour + texture + size + fill); it does not offer the paper's other combinations.
"""

import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image
from selectivesearch import selective_search
from skimage.color import rgb2hsv, rgb2lab


class Grouping(NamedTuple):
    """One way to group: the colour space, and the segmentation's scale k, smoothing sigma and smallest region (pixels)."""

    colour: str
    scale: float
    sigma: float
    min_size: int


# Chosen by measurement on 100 photographs of PASCAL VOC trainval and on 60 images of the embedded digits' train split: the most
# recall at IoU 0.5 and 0.7 for a third of a second per image of 320 x 240 pixels. sigma and the scale 50 are those of
# selective_search_boxes.m of rbgirshick/rcnn. min_size counts pixels of the shrunk image.
GROUPINGS = (
    Grouping("hue", 50, 0.8, 25),
    Grouping("lab", 50, 0.8, 50),
    Grouping("hsv", 50, 0.8, 50),
    Grouping("rgi", 50, 0.8, 50),
    Grouping("lab", 150, 0.8, 50),
)

# NOTE: images are shrunk to half their sides before the grouping. The package takes time per pixel and, worse, per pair of
# regions; on halved photographs a grouping takes a fifth of the time and finds as many objects, and the time saved goes into
# more groupings. Larger images are shrunk further, to the pixels of a halved 500 x 500 one: VOC's largest.
WORKING_SCALE = 0.5
WORKING_PIXELS = 250 * 250


def group_regions(image: np.ndarray) -> list[np.ndarray]:
    """Boxes [n x 4] of every region of each grouping of a uint8 RGB `image` [H x W x 3], in the order they were made.

    Boxes are whole pixels of `image`, 0-based with exclusive x2 and y2. No randomness.
    """
    height, width = image.shape[:2]
    working = _shrink(image)
    to_image = np.tile([width / working.shape[1], height / working.shape[0]], 2)
    return [np.rint(_group(working, grouping) * to_image) for grouping in GROUPINGS]


def _shrink(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    scale = min(WORKING_SCALE, (WORKING_PIXELS / (height * width)) ** 0.5)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _group(image: np.ndarray, grouping: Grouping) -> np.ndarray:
    colours = _convert_colours(image, grouping.colour)
    with warnings.catch_warnings():
        # The package hands its float copy of the image to scikit-image's texture patterns, which warn of that on every call.
        warnings.filterwarnings("ignore", message="Applying `local_binary_pattern`", category=UserWarning)
        _, regions = selective_search(colours, grouping.scale, grouping.sigma, grouping.min_size)
    left, top, width, height = np.array([region["rect"] for region in regions], np.float64).T
    return np.stack([left, top, left + width + 1, top + height + 1], axis=1)


def _convert_colours(image: np.ndarray, colour: str) -> np.ndarray:
    """`image` in one of the paper's colour spaces (section 3.2): uint8 [H x W x 3], each channel over 0 to 255.

    The package expects that range: it segments the image divided by 255, and takes histograms over [0, 255].
    """
    if colour == "hsv":
        channels = rgb2hsv(image) * 255
    elif colour == "hue":
        channels = np.repeat(rgb2hsv(image)[..., :1] * 255, 3, axis=2)
    elif colour == "lab":
        channels = rgb2lab(image) * [2.55, 1, 1] + [0, 128, 128]
    elif colour == "rgi":  # red and green as fractions of the three channels' sum, and intensity
        total = image.sum(axis=2, keepdims=True, dtype=np.float64)
        channels = np.concatenate([image[..., :2] / np.maximum(total, 1) * 255, total / 3], axis=2)
    else:
        raise ValueError(f"no colour space '{colour}'")
    return np.clip(np.rint(channels), 0, 255).astype(np.uint8)
