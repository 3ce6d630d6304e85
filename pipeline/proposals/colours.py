"""The colour spaces in which selective search segments and compares regions (Uijlings et al. 2013, section 3.2).

Compiled functions call none of another file: numba's cache would not notice that one changed.
"""

import numpy as np
from numba import njit

from pipeline.errors import PipelineError

# Number of channels of each colour space.
CHANNELS = {"hsv": 3, "lab": 3, "rgi": 3, "hue": 1, "intensity": 1}

# sRGB to the tristimulus values X, Y, Z, each as a fraction of the white point D65's (IEC 61966-2-1).
TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
TO_XYZ = (TO_XYZ / TO_XYZ.sum(axis=1, keepdims=True)).astype(np.float32)


def convert_colours(image: np.ndarray, space: str) -> np.ndarray:
    """The channels of a uint8 RGB `image` [H x W x 3] in a colour `space`: uint8 [C x H x W], each over 0 to 255.

    `hsv`: hue, saturation, value. `lab`: L* of 0 to 100 spread over 0 to 255, a* and b* raised by 128. `rgi`: red and green as
    fractions of the three channels' sum, and their mean. `hue`: hue alone. `intensity`: luma alone (ITU-R BT.601).

    Raises PipelineError for another space.
    """
    if space not in CHANNELS:
        raise PipelineError(f"no colour space '{space}'; choose one of {', '.join(CHANNELS)}")
    channels = np.empty((CHANNELS[space], *image.shape[:2]), np.uint8)
    pixels, flat = np.ascontiguousarray(image).reshape(-1, 3), channels.reshape(len(channels), -1)
    if space == "hsv":
        _to_hsv(pixels, flat)
    elif space == "lab":
        _to_lab(pixels, _linear_light(), TO_XYZ, _lightness(), flat)
    elif space == "rgi":
        _to_rgi(pixels, flat)
    elif space == "hue":
        hsv = np.empty((3, len(pixels)), np.uint8)
        _to_hsv(pixels, hsv)
        flat[0] = hsv[0]
    else:
        _to_intensity(pixels, flat[0])
    return channels


@njit(nogil=True, cache=True)
def _to_hsv(pixels, channels):
    for pixel in range(len(pixels)):
        red, green, blue = np.int32(pixels[pixel, 0]), np.int32(pixels[pixel, 1]), np.int32(pixels[pixel, 2])
        value = max(red, green, blue)
        spread = value - min(red, green, blue)
        # Hue in units of a sixth of the circle over `spread`: the circle is 6 x spread.
        if spread == 0:
            sixths = np.int32(0)
        elif value == red:
            sixths = green - blue if green >= blue else green - blue + 6 * spread
        elif value == green:
            sixths = blue - red + 2 * spread
        else:
            sixths = red - green + 4 * spread
        # a * 255 / b rounded, halves up, is (510 a + b) // 2 b
        channels[0, pixel] = (510 * sixths + 6 * spread) // (12 * spread) if spread else 0
        channels[1, pixel] = (510 * spread + value) // (2 * value) if value else 0
        channels[2, pixel] = value


@njit(nogil=True, cache=True)
def _to_rgi(pixels, channels):
    for pixel in range(len(pixels)):
        red, green, blue = np.int32(pixels[pixel, 0]), np.int32(pixels[pixel, 1]), np.int32(pixels[pixel, 2])
        total = red + green + blue
        channels[0, pixel] = (510 * red + total) // (2 * total) if total else 0
        channels[1, pixel] = (510 * green + total) // (2 * total) if total else 0
        channels[2, pixel] = (2 * total + 3) // 6


@njit(nogil=True, cache=True)
def _to_intensity(pixels, channel):
    for pixel in range(len(pixels)):
        luma = 299 * np.int32(pixels[pixel, 0]) + 587 * np.int32(pixels[pixel, 1]) + 114 * np.int32(pixels[pixel, 2])
        channel[pixel] = (luma + 500) // 1000


def _linear_light() -> np.ndarray:
    """Linear light of each sRGB value 0 to 255, in 0 to 1."""
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


LIGHTNESS_STEPS = 4096


def _lightness() -> np.ndarray:
    """CIE's f (the cube root, straight below (6/29)^3) at 0, 1 / LIGHTNESS_STEPS, ..., 1 and a little beyond."""
    light = np.arange(LIGHTNESS_STEPS + 2) / LIGHTNESS_STEPS
    return np.where(light > (6 / 29) ** 3, np.cbrt(light), light / (3 * (6 / 29) ** 2) + 4 / 29).astype(np.float32)


@njit(nogil=True, cache=True)
def _to_lab(pixels, linear_light, to_xyz, lightness, channels):
    f = np.empty(3, np.float32)
    for pixel in range(len(pixels)):
        red, green, blue = linear_light[pixels[pixel, 0]], linear_light[pixels[pixel, 1]], linear_light[pixels[pixel, 2]]
        for i in range(3):
            place = (to_xyz[i, 0] * red + to_xyz[i, 1] * green + to_xyz[i, 2] * blue) * np.float32(LIGHTNESS_STEPS)
            step = np.int32(place)
            f[i] = lightness[step] + (place - np.float32(step)) * (lightness[step + 1] - lightness[step])
        channels[0, pixel] = np.uint8(np.float32(2.55 * 116) * f[1] - np.float32(2.55 * 16) + np.float32(0.5))
        channels[1, pixel] = np.uint8(np.float32(500) * (f[0] - f[1]) + np.float32(128.5))
        channels[2, pixel] = np.uint8(np.float32(200) * (f[1] - f[2]) + np.float32(128.5))
