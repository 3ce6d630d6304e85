"""Label maps as results: palette PNGs in the layout of VOC's development kit (VOC2012, section 5.2).

    results/VOC2012/Segmentation/comp6_<set>_cls/<id>.png

Competition 6 allows any training data, competition 5 VOC's alone. A result has its image's own size and no void.
"""

from pathlib import Path

import numpy as np

from pipeline.datasets.masks import VOID, decode_mask, write_mask
from pipeline.errors import PipelineError
from pipeline.files.reading import read_regular
from pipeline.text import shown

ADVICE = "segment the split again"


def comp6_folder(split: str, year: int = 2012) -> str:
    """The folder of the results of the split (VOC's image set), below the one that holds VOC's `results`."""
    return f"results/VOC{year}/Segmentation/comp6_{split}_cls"


def write_label_map(folder: Path, id: str, labels: np.ndarray) -> Path:
    """Writes the label map uint8 [height x width] of the image `id`; returns the file.

    Raises PipelineError for an empty label map, labels beyond 254, and void: a result has a class for each pixel.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not labels.size:
        raise PipelineError(f"label map of image '{id}' has the shape {labels.shape}; expected height x width")
    wrong = labels[(labels < 0) | (labels >= VOID)]
    if wrong.size:
        fault = f"{wrong.size:,} pixels have the label {wrong[0]}"
        raise PipelineError(f"label map of image '{id}': {fault}; expected 0 to {VOID - 1}")
    path = _path(folder, id)
    path.parent.mkdir(parents=True, exist_ok=True)  # an id may have folders in it
    write_mask(path, labels)
    return path


def read_label_map(folder: Path, id: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """The label map uint8 [height x width] of the image `id`, as `write_label_map` or another program wrote it.

    Raises PipelineError, naming the file, when it is missing, no palette PNG, not of `size` (height, width) or has void pixels.
    """
    path = _path(folder, id)
    labels = decode_mask(path, read_regular(path, ADVICE, f"{shown(str(path))}: no such file; {ADVICE}"), size)
    if void := int((labels == VOID).sum()):
        raise PipelineError(f"{path}: {void:,} pixels have the value {VOID}, void; a result has a class for each pixel")
    return labels


def _path(folder: Path, id: str) -> Path:
    return Path(folder, f"{id}.png")
