"""Masks of classes and of instances: palette PNGs as large as their images, as VOC has them.

    <root>/SegmentationClass/<id>.png     the class of each pixel, from 1 on; 0 is the background
    <root>/SegmentationObject/<id>.png    the object of each pixel, from 1 on, in the order of the annotation

255 is void: a border that belongs to no class, and that the evaluation leaves out. The values are the palette's indices; their
colours are for people alone.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets.label_names import NUM_VALUES, UNKNOWN, LabelNames
from pipeline.errors import PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS
from pipeline.files.writing import write_image
from pipeline.images.reading import BROKEN, open_image

VOID = 255
SHOWN = 5  # unknown values that a message lists
# The fields of a record, and the folders of their files.
MASK_FOLDERS = {"class_mask": "SegmentationClass", "instance_mask": "SegmentationObject"}
REPLACE = "replace it or take it out of the folder"


def palette() -> np.ndarray:
    """The colours of VOC's palette, uint8 [256 x 3]: each three bits of a number are a bit of red, green and blue each."""
    colours = np.zeros((256, 3), np.uint8)
    numbers = np.arange(256)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((numbers >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Writes a mask, uint8 [height x width], as a palette PNG."""
    path.parent.mkdir(exist_ok=True)
    image = Image.fromarray(np.ascontiguousarray(mask, np.uint8), "L")
    image.putpalette(palette().tobytes())  # makes it of mode P
    write_image(path, image)


def decode_mask(
    path: Path, content: bytes, size: tuple[int, int] | None = None, max_megapixels: float = MAX_MEGAPIXELS
) -> np.ndarray:
    """The mask, uint8 [height x width], in the bytes `content` of the file `path`.

    Raises PipelineError, naming `path`, when it is no PNG with a palette or of grey levels, not of `size` (height, width), or of
    more than `max_megapixels` millions of pixels.
    """
    image = open_image(path, content, max_megapixels)
    if image.format != "PNG" or image.mode not in ("P", "L"):
        fault = f"a {image.format} of pixel mode {image.mode}{_main_colour(image)}"
        raise PipelineError(f"{path}: {fault}; expected a PNG with a palette, as VOC's masks are")
    if size and (image.height, image.width) != tuple(size):
        fault = f"the mask is {image.width} x {image.height}, its image {size[1]:g} x {size[0]:g}"
        raise PipelineError(f"{path}: {fault}; {REPLACE}")
    try:
        return np.asarray(image)
    except BROKEN as error:
        raise PipelineError(f"{path}: broken image data ({type(error).__name__}); {REPLACE}") from error


def _main_colour(image: Image.Image) -> str:
    """The most frequent colour of a mask of colours, black left out, for a message."""
    try:
        colours = image.convert("RGB").getcolors(NUM_VALUES**2) or ()
        counts = [(count, colour) for count, colour in colours if colour != (0, 0, 0)]
    except BROKEN:
        return ""
    count, colour = max(counts, default=(0, ()))
    return f", whose colour {colour} has {count:,} pixels" if count else ""


def to_labels(path: Path, mask: np.ndarray, labels: LabelNames) -> np.ndarray:
    """The labels, uint8 [height x width], of a class mask that was read from the file `path`; void stays VOID.

    Raises PipelineError, naming file, value and number of pixels, when the mask has values without a label.
    """
    table = labels.table()
    table[VOID] = VOID
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=len(table)))
    unknown = values[table[values] == UNKNOWN]
    if len(unknown):
        counts = ", ".join(f"{value} ({int((mask == value).sum()):,} pixels)" for value in unknown[:SHOWN])
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        known = len(labels.values or labels.names)
        raise PipelineError(f"{path}: has the value {counts}{more}; expected 0 to {known - 1}, or {VOID} for void")
    return table.astype(np.uint8)[mask]
