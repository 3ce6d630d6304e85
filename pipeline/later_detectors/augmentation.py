"""SSD's augmentation (Liu et al. 2016, section 2.2; `ssd_pascal.py` and `annotated_data_layer.cpp` of weiliu89/caffe).

1. Colours are distorted.
2. Half of the images are put into a larger one, up to four times as wide and high, of the mean colour.
3. One of seven samplers is chosen among those that find a patch: the whole image; a patch that overlaps some object by an IoU
   of at least 0.1, 0.3, 0.5, 0.7 or 0.9; any patch. Objects whose centres are in the patch stay.

Mirroring is done for all detectors alike, in `sampling`.

NOTE: the release distorts contrast before or after the other colours, by chance, on whole numbers; here values are real and the
order is one.

Shape shorthand: M objects.
"""

from typing import NamedTuple

import numpy as np
from skimage.color import hsv2rgb, rgb2hsv

from pipeline.boxes import iou

HALF = 0.5
BRIGHTNESS = 32 / 255
FACTORS = 0.5, 1.5  # of contrast and saturation
HUE = 18 / 180  # of the circle
LARGEST = 4.0
OVERLAPS = (0.1, 0.3, 0.5, 0.7, 0.9)
SCALES, RATIOS, TRIALS = (0.3, 1.0), (0.5, 2.0), 50


class Sample(NamedTuple):
    """Pixels float32 [height x width x 3] in 0..1, boxes [M x 4] and the numbers of the objects that they belong to."""

    pixels: np.ndarray
    boxes: np.ndarray
    objects: np.ndarray


def augment(sample: Sample, mean: np.ndarray, generator: np.random.Generator) -> Sample:
    """Another view of the same objects; `mean` [3] fills what the image does not cover."""
    # 1. Distort colours. 2. Expand. 3. Take a patch.
    pixels = distort(sample.pixels, generator)
    return take_patch(expand(sample._replace(pixels=pixels), mean, generator), generator)


def distort(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Changes brightness, contrast, saturation and hue, each with probability one half."""
    if generator.random() < HALF:
        pixels = pixels + generator.uniform(-BRIGHTNESS, BRIGHTNESS)
    if generator.random() < HALF:
        pixels = pixels * generator.uniform(*FACTORS)
    pixels = np.clip(pixels, 0, 1)
    factor = generator.uniform(*FACTORS) if generator.random() < HALF else 1.0
    shift = generator.uniform(-HUE, HUE) if generator.random() < HALF else 0.0
    if factor != 1 or shift:
        colours = rgb2hsv(pixels)
        colours[..., 0] = (colours[..., 0] + shift) % 1
        colours[..., 1] = np.clip(colours[..., 1] * factor, 0, 1)
        pixels = hsv2rgb(colours)
    return pixels.astype(np.float32)


def expand(sample: Sample, mean: np.ndarray, generator: np.random.Generator) -> Sample:
    """Half of the images become part of a larger one."""
    if generator.random() >= HALF:
        return sample
    factor = generator.uniform(1, LARGEST)
    height, width = sample.pixels.shape[:2]
    rows, columns = int(height * factor), int(width * factor)
    top, left = (int(generator.uniform(0, free + 1)) for free in (rows - height, columns - width))
    pixels = np.empty((rows, columns, 3), np.float32)
    pixels[:] = mean
    pixels[top : top + height, left : left + width] = sample.pixels
    return sample._replace(pixels=pixels, boxes=sample.boxes + np.array([left, top, left, top], np.float32))


def take_patch(sample: Sample, generator: np.random.Generator) -> Sample:
    """One of the patches that the samplers find, or the whole image."""
    height, width = sample.pixels.shape[:2]
    patches = [draw_patch(sample.boxes, height, width, overlap, generator) for overlap in OVERLAPS if len(sample.boxes)]
    patches.append(draw_patch(sample.boxes, height, width, None, generator))
    areas = [np.array([0, 0, width, height]), *(patch for patch in patches if patch is not None)]
    return crop(sample, areas[generator.integers(len(areas))])


def draw_patch(
    boxes: np.ndarray, height: int, width: int, overlap: float | None, generator: np.random.Generator
) -> np.ndarray | None:
    """A patch (x1, y1, x2, y2) that overlaps one of `boxes` by an IoU of `overlap` at least; None if all trials fail."""
    for _ in range(TRIALS):
        scale = generator.uniform(*SCALES)
        # As in the release, the ratio keeps the patch within the image.
        ratio = generator.uniform(max(RATIOS[0], scale**2), min(RATIOS[1], 1 / scale**2))
        columns, rows = (max(1, int(side * scale * part)) for side, part in ((width, ratio**0.5), (height, ratio**-0.5)))
        left, top = (int(generator.uniform(0, max(0, side - part) + 1)) for side, part in ((width, columns), (height, rows)))
        patch = np.array([left, top, min(width, left + columns), min(height, top + rows)], np.float32)
        if overlap is None or iou(boxes, patch[None]).max() >= overlap:
            return patch
    return None


def crop(sample: Sample, patch: np.ndarray) -> Sample:
    """The part of the sample in `patch`: objects whose centres are inside, with what of their boxes is inside."""
    left, top, right, bottom = map(int, patch)
    centres = (sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2
    stays = ((centres >= (left, top)) & (centres < (right, bottom))).all(axis=1)
    corners = np.array([left, top, left, top], np.float32)
    limits = np.array([right - left, bottom - top] * 2, np.float32)
    boxes = np.clip(sample.boxes[stays] - corners, 0, limits).astype(np.float32)
    return Sample(sample.pixels[top:bottom, left:right], boxes, sample.objects[stays])
