"""Label maps: the class of each pixel of an image, as the rest of the chapter sees it.

Labels are 0 to K - 1, and 255 is void: pixels of no class, which training and evaluation leave out.
"""

import math
from pathlib import Path

import numpy as np

from pipeline.datasets.label_names import BACKGROUND, LabelNames, of_classes
from pipeline.datasets.masks import VOID, decode_mask, to_labels
from pipeline.datasets.records import ImageRecord, Split
from pipeline.errors import PipelineError
from pipeline.images.reading import read_content

__all__ = ["BACKGROUND", "VOID", "LabelMaps", "LabelNames", "label_names", "usable"]


def label_names(split: Split) -> LabelNames:
    """The labels of a split's class masks: those of its index, or the background and the split's classes."""
    return split.labels or of_classes(split.classes)


def usable(split: Split) -> list[int]:
    """The numbers of the images that have a class mask."""
    return [number for number, record in enumerate(split.images) if record.class_mask]


class LabelMaps:
    """Reads the label maps of a split's images. `root` is the folder of the mask files, `names` are the split's labels."""

    def __init__(self, root: Path, names: LabelNames):
        self.root, self.names = Path(root), names

    def read(self, record: ImageRecord) -> np.ndarray:
        """The label of each pixel, uint8 [height x width]: 0 to K - 1, or VOID.

        Raises PipelineError, naming the file, when the image has no mask, the file has changed since it was indexed, the mask is
        of another size than its image, or a value has no label.
        """
        if record.class_mask is None:
            raise PipelineError(f"image '{record.id}' has no class mask; add one or leave the image out")
        path = self.root / record.class_mask.path
        content = read_content(path, record.class_mask.digest)
        mask = decode_mask(path, content, (record.height, record.width), math.inf)
        return to_labels(path, mask, self.names)
