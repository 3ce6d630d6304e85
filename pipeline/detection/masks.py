"""Masks of detections: kept as a few cells of the box each, put into the image where someone looks at them.

Shape shorthand: N detections, m x m cells of a mask.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image

from pipeline.detection.candidates import Candidates
from pipeline.detection.detections import Detections
from pipeline.files.writing import write_arrays

CELLS = 28  # along a side of the masks of Mask R-CNN
HALF = 0.5  # probability from which on a pixel belongs to the object (He et al. 2017, section 3.1)
AT_A_TIME = 32  # pasted masks take memory


def pasted(masks: np.ndarray, boxes: np.ndarray, height: int, width: int) -> Iterator[np.ndarray]:
    """The mask of each detection in its image, bool [height x width], from `masks` uint8 [N x m x m] and `boxes` [N x 4]."""
    for first in range(0, len(masks), AT_A_TIME):
        some = slice(first, first + AT_A_TIME)
        cells = torch.from_numpy(masks[some]).float().div(255)[:, None]
        yield from (paste_masks_in_image(cells, torch.from_numpy(boxes[some]), (height, width))[:, 0] >= HALF).numpy()


def kept_rows(candidates: Candidates, kept: np.ndarray) -> np.ndarray:
    """The rows of an image's candidates that a limit over the split has left.

    `kept` are the classes of the image's detections. Candidates are by class, then falling score, and the limit takes the last.
    """
    survivors = np.flatnonzero(candidates.survives)
    labels = candidates.class_index[survivors]
    place = np.arange(len(labels)) - np.searchsorted(labels, labels)
    counts = np.bincount(kept, minlength=labels.max(initial=0) + 1)
    return survivors[place < counts[labels]]


def of_image(detections: Detections, number: int) -> slice:
    """The rows of image `number`."""
    return slice(*np.searchsorted(detections.image_index, (number, number + 1)))


def save_masks(path: Path, masks: Sequence[np.ndarray]) -> None:
    """Writes the masks of several images, uint8 [N x m x m] each, one after another to the .npz file `path`."""
    write_arrays(path, {"masks": np.concatenate(masks)})
