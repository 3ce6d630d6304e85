"""Pictures that a page carries in itself, as data URIs."""

import io
from base64 import b64encode

import numpy as np
from PIL import Image

JPEG_QUALITY = 80


def data_uri(content: bytes, kind: str) -> str:
    """`content` of the media type image/`kind` as a URI."""
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def svg_uri(text: str) -> str:
    """An SVG picture as a URI: as a separate image, so that its ids do not clash with another picture's."""
    return data_uri(text.encode(), "svg+xml")


def jpeg_uri(pixels: np.ndarray, longest_side: int) -> str:
    """uint8 RGB `pixels` [H x W x 3] as a JPEG, shrunk to `longest_side` pixels where larger."""
    image = Image.fromarray(pixels)
    image.thumbnail((longest_side, longest_side), Image.Resampling.BILINEAR)
    return _encoded(image, "jpeg", quality=JPEG_QUALITY)


def png_uri(pixels: np.ndarray) -> str:
    """uint8 RGB `pixels` [H x W x 3] as a PNG."""
    return _encoded(Image.fromarray(pixels), "png", optimize=True)


def crop(pixels: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    """What `box` [4] shows of `pixels` [H x W x 3], its longer side `side` pixels; at least one pixel of the image."""
    height, width = pixels.shape[:2]
    x1, y1 = min(max(0.0, float(box[0])), width - 1), min(max(0.0, float(box[1])), height - 1)
    x2, y2 = min(max(x1 + 1, float(box[2])), width), min(max(y1 + 1, float(box[3])), height)
    scale = side / max(x2 - x1, y2 - y1)
    size = max(1, round(scale * (x2 - x1))), max(1, round(scale * (y2 - y1)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, box=(x1, y1, x2, y2)))


def _encoded(image: Image.Image, kind: str, **options) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return data_uri(file.getvalue(), kind)
