"""Reading images as uint8 RGB arrays [height x width x 3].

Images of a data set come with their pixels as stored in the file, as their annotations count them: EXIF rotation is not applied.
Photographs that a user hands to a detector are turned as EXIF says, since detectors have learnt objects that stand upright.
"""

import hashlib
import io
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import PipelineError
from pipeline.files import read_regular

SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP"}
# Of photographs, whose suffix may say anything. A phone's JPEG with a second picture behind the first (MPO) is one of the first.
PHOTOGRAPHS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")
# Modes that become 8-bit RGB without loss of range. 16-bit, float and CMYK images would change silently.
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}
PNG_BIT_DEPTH = 24  # offset of a byte of the header, PNG specification section 11.2.1: Pillow's mode hides 16-bit colour


def open_image(path: Path, content: bytes) -> Image.Image:
    """The image in `content`, the bytes of the file `path`, not yet decoded.

    Raises PipelineError, naming `path`, when it is no image, of another format than its suffix says, or of an unsupported mode.
    """
    expected = SUFFIXES.get(path.suffix.lower())
    if expected is None:
        raise PipelineError(f"{path}: suffix '{path.suffix}' is none of {', '.join(SUFFIXES)}; convert the image")
    image = _open(path, content)
    if image.format != expected:
        raise PipelineError(f"{path}: its suffix says {expected}, its content is {image.format}; rename or convert it")
    _check_pixels(path, image, content)
    return image


def _open(path: Path, content: bytes, formats: tuple[str, ...] | None = None) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=formats)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow's own words for an unknown format hold an address in memory, and errors of photographs go into results.
        found = f"none of {', '.join(formats or SUFFIXES.values())}" if isinstance(error, UnidentifiedImageError) else error
        raise PipelineError(f"{path}: not a readable image ({found}); replace it or take it out of the list") from error


def _check_pixels(path: Path | str, image: Image.Image, content: bytes = b"") -> None:
    if image.mode not in MODES:
        raise PipelineError(f"{path}: pixel mode {image.mode} is not supported; convert it to 8-bit RGB")
    if image.format == "PNG" and content[PNG_BIT_DEPTH:] and content[PNG_BIT_DEPTH] > 8:
        raise PipelineError(f"{path}: {content[PNG_BIT_DEPTH]}-bit {image.mode} is not supported; convert it to 8-bit RGB")


def decode_image(path: Path, content: bytes) -> np.ndarray:
    """The pixels, uint8 [height x width x 3], of the image file `path` whose bytes are `content`. Raises as `open_image`."""
    image = open_image(path, content)
    try:
        return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise PipelineError(f"{path}: broken image data ({error}); replace it or take it out of the list") from error


def read_image(path: Path, digest: str | None = None) -> np.ndarray:
    """The pixels, uint8 [height x width x 3], of the file `path`.

    With `digest` (SHA-256 in hex), raises PipelineError when the file is no longer the one that was indexed.
    """
    return decode_image(Path(path), read_content(path, digest))


def read_content(path: Path, digest: str | None = None) -> bytes:
    """The bytes of the file `path`. Raises as `read_image`."""
    content = read_regular(path, "put it back and run again")
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise PipelineError(f"{path}: changed since it was indexed; run again, so that it is indexed anew")
    return content


def decode_photograph(path: Path | str, content: bytes) -> np.ndarray:
    """The pixels, uint8 [height x width x 3], of a user's photograph `path` with the bytes `content`, turned as EXIF says.

    Raises PipelineError, naming `path`, when it is none of PHOTOGRAPHS, damaged, animated, or of an unsupported mode.
    """
    image = _open(path, content, PHOTOGRAPHS)
    _check_pixels(path, image, content)
    try:
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        pixels = upright_pixels(image) if frames == 1 else None
    except (ArithmeticError, EOFError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error) as error:
        raise PipelineError(f"{path}: broken image data ({error}); replace it") from error
    if pixels is None:
        raise PipelineError(f"{path}: an animation of {frames} frames; save the one to look at as an image of its own")
    return pixels


def upright_pixels(image: Image.Image) -> np.ndarray:
    """The pixels of `image`, uint8 [height x width x 3], turned as EXIF says. Raises PipelineError for an unsupported mode."""
    _check_pixels("the image", image)
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


class ImageCache:
    """Reads images of a data set and keeps the last ones used, up to `megabytes` of pixels."""

    def __init__(self, root: Path, megabytes: float):
        self.root, self.capacity = Path(root), int(megabytes * 2**20)
        self._kept: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()
        self._size = 0

    def read(self, record) -> np.ndarray:
        """The pixels of an ImageRecord, checked against its digest. Raises as `read_image`."""
        key = record.path, record.digest
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        pixels = read_image(self.root / record.path, record.digest)
        self._kept[key] = pixels
        self._size += pixels.nbytes
        while self._size > self.capacity and len(self._kept) > 1:
            self._size -= self._kept.popitem(last=False)[1].nbytes
        return pixels
