import base64
import io

import numpy as np
import pytest
from PIL import Image

from pipeline.report.embedding import crop, jpeg_uri, png_uri, svg_uri


def decode(uri: str) -> Image.Image:
    header, _, content = uri.partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert header == f"data:image/{image.format.lower()};base64"
    return image


def test_pixels_survive_and_large_images_shrink():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 60, 3), np.uint8)
    assert (np.asarray(decode(png_uri(pixels))) == pixels).all()
    assert decode(jpeg_uri(pixels, 40)).size == (40, 20)
    assert decode(jpeg_uri(pixels, 100)).size == (60, 30)
    assert base64.b64decode(svg_uri("<svg>é</svg>").partition(",")[2]).decode() == "<svg>é</svg>"


@pytest.mark.parametrize(("box", "size", "colour"), [
    ((12, 0, 20, 4), (20, 10), 200), ((-5, -5, 5, 5), (20, 20), 0), ((12, 3, 12.2, 3.1), (20, 20), 200),
    ((90, 90, 95, 95), (20, 20), 200),
])
def test_crops_are_inside_the_image(box, size, colour):
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, 10:] = 200
    cropped = crop(pixels, box, 20)
    assert cropped.shape == (*size[::-1], 3)
    assert (cropped == colour).all()
