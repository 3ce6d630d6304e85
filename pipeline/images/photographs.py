"""What a user hands to a trained model: the path of a photograph, a PIL image, or pixels."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.errors import PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS
from pipeline.images.reading import decode_photograph, read_content, upright_pixels


def read_pixels(image: Path | str | Image.Image | np.ndarray, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """The pixels that a model sees, uint8 [height x width x 3]. Raises PipelineError for an image that cannot be used."""
    if isinstance(image, (Path, str)):
        return decode_photograph(image, read_content(Path(image)), max_megapixels)
    if isinstance(image, Image.Image):
        return upright_pixels(image, max_megapixels)
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size):
        kind = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise PipelineError(f"image: found {kind}, expected a path, a PIL image or uint8 RGB pixels [height x width x 3]")
    return image
