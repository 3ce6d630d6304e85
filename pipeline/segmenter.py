"""A trained segmenter on new images: `Segmenter.load(folder).segment("photo.jpg")`.

A folder holds all that it needs: `segmenter.json`, with the names of the label values and the network's layout, and the network.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline.datasets.label_names import is_background
from pipeline.errors import PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS
from pipeline.images.photographs import read_pixels
from pipeline.networks.compute import prepare
from pipeline.segmentation.drawing import overlay
from pipeline.segmentation.network import Layout, restore_network
from pipeline.segmentation.segment import ImageSegmenter
from pipeline.segmenter_folder import ADVICE, SETTINGS, network_path, read_settings
from pipeline.text import flat


class Segmenter:
    """A network that was trained to label pixels, ready for images of up to `max_megapixels`. `names` are those of the labels."""

    def __init__(self, settings: dict, segmenter: ImageSegmenter, max_megapixels: float = MAX_MEGAPIXELS):
        self.settings, self.segmenter, self.max_megapixels = settings, segmenter, max_megapixels
        self.names = tuple(settings["names"])

    @classmethod
    def load(
        cls, folder: Path | str, device: str = "cpu", threads: int | None = None, max_megapixels: float = MAX_MEGAPIXELS
    ) -> "Segmenter":
        """The segmenter that `ExportSegmenter` wrote to `folder`, on `threads` threads (torch's own number).

        Raises PipelineError, naming the file, for a folder that is damaged, is not a segmenter's or links to files elsewhere, and
        for an unknown device.
        """
        settings, path = read_settings(folder), network_path(folder)
        prepared = prepare(device, threads or torch.get_num_threads())
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise PipelineError(f"{path}: cannot be read ({flat(error)}); {ADVICE}") from error
        try:
            model = restore_network(tensors, Layout(**settings["layout"]), str(path))
        except PipelineError:
            raise
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:  # of any layout
            fault = f"{type(error).__name__}: {flat(error)}"
            raise PipelineError(f"{Path(folder) / SETTINGS}: not that of a segmenter ({fault}); {ADVICE}") from error
        return cls(settings, ImageSegmenter(model, prepared, settings["precision"]), max_megapixels)

    def segment(self, image: Path | str | Image.Image | np.ndarray) -> np.ndarray:
        """The labels of an image's pixels, uint8 [height x width]: places in `names`.

        The image is the path of a file, a PIL image, or uint8 RGB pixels [height x width x 3]; files and PIL images are turned as
        EXIF says. Raises PipelineError for an image that cannot be used.
        """
        return self.segmenter.segment(read_pixels(image, self.max_megapixels))

    def draw(self, image: Path | str | Image.Image | np.ndarray, labels: np.ndarray) -> Image.Image:
        """The image with the colour of each pixel's class over it; pixels of the background stay as they are."""
        return overlay(read_pixels(image, self.max_megapixels), labels, is_background(self.names[0]))
