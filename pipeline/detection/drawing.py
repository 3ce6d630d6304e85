"""Detections drawn into their image."""

import colorsys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.boxes import to_inclusive
from pipeline.detection.detections import ImageDetections

# The file of matplotlib's font, without importing matplotlib. Pillow's own font has no letters beyond ASCII.
MATPLOTLIB = find_spec("matplotlib")
assert MATPLOTLIB is not None  # it is a requirement
assert MATPLOTLIB.origin is not None
FONT = Path(MATPLOTLIB.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
TINT = 0.45  # share of the colour in a mask
GOLDEN = 0.618  # hues of successive classes are this far apart: no two of any few are near


def colour_of(label: int) -> tuple[int, ...]:
    """The colour of a class: red, green, blue."""
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(label * GOLDEN % 1, 0.75, 1))


def tint(pixels: np.ndarray, masks: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`pixels`, uint8 [height x width x 3], with `masks` uint8 [N x m x m] of `boxes` [N x 4] in the colours of their labels."""
    from pipeline.detection.masks import pasted  # here: it needs torch, which boxes can do without

    pixels = pixels.copy()
    for mask, label in zip(pasted(masks, boxes, *pixels.shape[:2]), labels.tolist(), strict=True):
        pixels[mask] = np.rint((1 - TINT) * pixels[mask] + TINT * np.array(colour_of(label))).astype(np.uint8)
    return pixels


def draw_boxes(pixels: np.ndarray, boxes: np.ndarray, texts: list[str], labels: np.ndarray) -> Image.Image:
    """`pixels`, uint8 [height x width x 3], with `boxes` [N x 4], each with its text, in the colour of its label [N].

    The last is on top. Lines have a dark and a light edge and texts a background, so that they are seen on any image.
    """
    image = Image.fromarray(pixels)
    draw, shorter = ImageDraw.Draw(image), min(image.size)
    line = max(1, round(shorter / 250))
    font = ImageFont.truetype(str(FONT), max(10, round(shorter / 32)))
    corners = to_inclusive(boxes.astype(np.float64))  # Pillow draws the last pixel too
    for (x1, y1, x2, y2), text, label in zip(corners.tolist(), texts, labels.tolist(), strict=True):
        colour = colour_of(label)
        x2, y2 = max(x1, x2), max(y1, y2)
        for grown, ink in ((line, "black"), (-line, "white"), (0, colour)):
            outer = x1 - grown, y1 - grown, max(x1 - grown, x2 + grown), max(y1 - grown, y2 + grown)
            draw.rectangle(outer, outline=ink, width=line)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        width, height = right - left + 2 * line, bottom - top + 2 * line
        x = max(0, min(x1 - line, image.width - width))
        y = y1 - line - height if y1 - line >= height else y1  # inside where there is no room above
        draw.rectangle((x, y, x + width, y + height), fill=colour, outline="black")
        luminance = np.dot(colour, (0.299, 0.587, 0.114))
        draw.text((x + line - left, y + line - top), text, "black" if luminance > 128 else "white", font)
    return image


def draw_detections(pixels: np.ndarray, detections: ImageDetections, lowest: np.ndarray) -> Image.Image:
    """`pixels`, uint8 [height x width x 3], with the boxes, class names and scores of those that score enough.

    `lowest` [C] are the lowest scores of each class. Masks are drawn where the detections have any.
    """
    rows = np.flatnonzero(detections.reach(lowest))[::-1]  # the best on top
    if detections.masks is not None:
        pixels = tint(pixels, detections.masks[rows], detections.boxes[rows], detections.labels[rows])
    texts = [f"{detections.classes[detections.labels[row]]} {detections.scores[row]:.2f}" for row in rows]
    return draw_boxes(pixels, detections.boxes[rows], texts, detections.labels[rows])
