"""Reading images as uint8 RGB arrays [height x width x 3].

A file may have a mark of rotation (EXIF's orientation): programs show it turned. Images of a data set come with their pixels as
stored in the file, or turned as their record says: the boxes decide. Photographs that a user hands to a detector are turned as
their mark says, since detectors have learnt objects that stand upright.
"""

import contextlib
import hashlib
import io
import math
import os
import struct
import threading
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.errors import ChangedFile, PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS, read_regular
from pipeline.text import flat

# A file's content says what it is, not its suffix. MPO is a phone's JPEG with a second picture behind the first, which counts.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")
UPRIGHT = 1  # EXIF's orientation of pixels that are stored as they are looked at
ORIENTATION = 0x0112  # EXIF's tag of it
# What brings stored pixels of each of EXIF's other orientations upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}
# Modes that become 8-bit RGB without loss of range. 16-bit, float and CMYK images would change silently.
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}
# What Pillow raises, whatever a damaged file does to its readers. Not MemoryError, which says nothing about the file.
BROKEN = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError, TypeError,
    ValueError, struct.error, zlib.error, Image.DecompressionBombError,
)
REPLACE = "replace it or leave it out"
PNG_BIT_DEPTH = 24  # offset of a byte of the header, PNG specification section 11.2.1: Pillow's mode hides 16-bit colour


_pillows_limit = threading.Lock()


def _renew_lock() -> None:
    global _pillows_limit
    _pillows_limit = threading.Lock()


if hasattr(os, "register_at_fork"):  # a thread that the fork does not have may hold it
    os.register_at_fork(after_in_child=_renew_lock)


def open_image(path: Path | str, content: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> Image.Image:
    """The image in `content`, the bytes of the file `path`, not yet decoded.

    Raises PipelineError, naming `path`, when it is none of FORMATS, an animation, of an unsupported mode, or of more than
    `max_megapixels` millions of pixels.
    """
    try:
        with _our_rules():
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except BROKEN as error:
        # Pillow's own words for an unknown format hold an address in memory, and errors of photographs go into results.
        fault = f"none of {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else flat(error)
        raise PipelineError(f"{path}: not a readable image ({fault}); {REPLACE}") from error
    _check_size(path, image, max_megapixels)
    _check_pixels(path, image, content)
    _check_frames(path, image)
    return image


@contextlib.contextmanager
def _our_rules() -> Iterator[None]:
    """While a header is read, our limit replaces Pillow's, which refuses 179 megapixels whatever the user's setting.

    Pillow does not warn of damaged marks and of second pictures: they are not read, or read as none.
    """
    with _pillows_limit, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_size(path: Path | str, image: Image.Image, max_megapixels: float) -> None:
    """Looks at the header alone: decoding takes some 10 bytes of memory for each pixel, however small the file is."""
    width, height = image.size
    if width * height > max_megapixels * 1e6:
        raise PipelineError(
            f"{path}: {width} x {height} pixels are {width * height / 1e6:.4g} megapixels, more than the limit of "
            f"{max_megapixels:g}; make it smaller, or raise --max-megapixels (in Python, max_megapixels)"
        )


def _check_pixels(path: Path | str, image: Image.Image, content: bytes = b"") -> None:
    if image.mode not in MODES:
        raise PipelineError(f"{path}: pixel mode {image.mode} is not supported; convert it to 8-bit RGB")
    if image.format == "PNG" and content[PNG_BIT_DEPTH:] and content[PNG_BIT_DEPTH] > 8:
        raise PipelineError(f"{path}: {content[PNG_BIT_DEPTH]}-bit {image.mode} is not supported; convert it to 8-bit RGB")


def _check_frames(path: Path | str, image: Image.Image) -> None:
    try:
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except BROKEN as error:
        raise _broken(path, error) from error
    if frames > 1:
        raise PipelineError(f"{path}: an animation of {frames} frames; save the one to look at as an image of its own")


def _broken(path: Path | str, error: BaseException) -> PipelineError:
    return PipelineError(f"{path}: broken image data ({flat(error)}); {REPLACE}")


def decode_image(
    path: Path | str, content: bytes, max_megapixels: float = MAX_MEGAPIXELS, orientation: int = UPRIGHT
) -> np.ndarray:
    """The pixels, uint8 [height x width x 3], of the image file `path` whose bytes are `content`. Raises as `open_image`.

    They are the stored pixels, turned as EXIF's `orientation` says; the file's own mark is not looked at.
    """
    return decode(path, open_image(path, content, max_megapixels), orientation)


def decode(path: Path | str, image: Image.Image, orientation: int = UPRIGHT) -> np.ndarray:
    """The pixels of an image that `open_image` has opened; as `decode_image`."""
    try:
        return _rgb(turned(image, orientation))
    except BROKEN as error:
        raise _broken(path, error) from error


def orientation_of(path: Path | str, image: Image.Image) -> int:
    """The mark of rotation (EXIF's orientation) of an image: 1 to 8, and UPRIGHT where it has none.

    Decodes the image. Raises PipelineError, naming `path`, when its data are broken; a damaged mark is none.
    """
    try:
        image.load()  # a PNG's mark may come after its pixels
    except BROKEN as error:
        raise _broken(path, error) from error
    with _our_rules(), contextlib.suppress(*BROKEN):
        orientation = image.getexif().get(ORIENTATION)
        return orientation if orientation in TURNS else UPRIGHT
    return UPRIGHT


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image as it is looked at, if `orientation` is EXIF's mark of its stored pixels."""
    return image if orientation == UPRIGHT else image.transpose(TURNS[orientation])


def read_image(path: Path, digest: str | None = None, orientation: int = UPRIGHT) -> np.ndarray:
    """The pixels, uint8 [height x width x 3], of the file `path`; `orientation` as for `decode_image`.

    With `digest` (SHA-256 in hex), raises PipelineError when the file is no longer the one that was indexed. Without, it must be
    within MAX_MEGAPIXELS; what was indexed kept to the limit that was set then.
    """
    limit = MAX_MEGAPIXELS if digest is None else math.inf
    return decode_image(path, read_content(path, digest), limit, orientation)


def read_record(root: Path, record) -> np.ndarray:
    """The pixels of an ImageRecord of the data set in `root`, turned as the index says. Raises as `read_image`."""
    return read_image(Path(root) / record.path, record.digest, record.orientation)


def read_content(path: Path, digest: str | None = None) -> bytes:
    """The bytes of the file `path`. Raises ChangedFile when it cannot be read, or has another digest."""
    try:
        content = read_regular(path, "put it back and run again")
    except PipelineError as error:
        raise ChangedFile(path, str(error)) from error
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise ChangedFile(path, f"{path}: changed since it was indexed; run again, so that it is indexed anew")
    return content


def decode_photograph(path: Path | str, content: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """The pixels, uint8 [height x width x 3], of a user's photograph `path` with the bytes `content`, turned as EXIF says.

    Raises PipelineError as `open_image`.
    """
    image = open_image(path, content, max_megapixels)
    return decode(path, image, orientation_of(path, image))


def upright_pixels(image: Image.Image, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """The pixels of `image`, uint8 [height x width x 3], turned as EXIF says.

    Raises PipelineError for an unsupported mode and for more than `max_megapixels` millions of pixels.
    """
    _check_pixels("the image", image)
    _check_size("the image", image, max_megapixels)
    return _rgb(turned(image, orientation_of("the image", image)))


def _rgb(image: Image.Image) -> np.ndarray:
    # `convert` copies an image that is RGB already: a third of the memory.
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


class ImageCache:
    """Reads images of a data set and keeps the last ones used, up to `megabytes` of pixels."""

    def __init__(self, root: Path, megabytes: float):
        self.root, self.capacity = Path(root), int(megabytes * 2**20)
        self._lock = threading.Lock()  # of what is kept; files are read outside it, side by side
        self._kept: OrderedDict[tuple[str, str, int], np.ndarray] = OrderedDict()
        self._size = 0

    def read(self, record) -> np.ndarray:
        """The pixels of an ImageRecord, checked against its digest. Raises as `read_image`."""
        key = record.path, record.digest, record.orientation
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        pixels = read_record(self.root, record)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = pixels
                self._size += pixels.nbytes
            while self._size > self.capacity and len(self._kept) > 1:
                self._size -= self._kept.popitem(last=False)[1].nbytes
        return pixels
