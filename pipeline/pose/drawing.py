"""Poses drawn into their image: limbs as lines, joints as points, each pose in a colour of its own."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from pipeline.detection.drawing import colour_of


def draw_poses(pixels: np.ndarray, joints: np.ndarray, limbs: Sequence[Sequence[int]]) -> Image.Image:
    """`pixels`, uint8 [height x width x 3], with the poses `joints` [N x k x 2]; the first is on top."""
    image = Image.fromarray(pixels)
    draw, shorter = ImageDraw.Draw(image), min(image.size)
    line = max(1, round(shorter / 200))
    for number in reversed(range(len(joints))):
        colour, points = colour_of(number), [tuple(point) for point in joints[number].tolist()]
        # A dark line below each, so that it is seen on any image.
        for width, ink in ((3 * line, "black"), (line, colour)):
            for first, second in limbs:
                draw.line((*points[first], *points[second]), fill=ink, width=width)
        for x, y in points:
            draw.ellipse((x - 2 * line, y - 2 * line, x + 2 * line, y + 2 * line), fill=colour, outline="black")
    return image
