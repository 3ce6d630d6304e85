"""Region proposals: class-independent boxes that may hold an object (Girshick et al. 2014, section 2.1).

A backend groups the regions of an image bottom-up, in several diverse ways, and gives the boxes of each hierarchy
(selective search, Uijlings et al. 2013, sections 3 and 4). `propose` merges the hierarchies into one list.

Shape shorthand: H x W image, n boxes of one hierarchy, N proposals.
"""

from importlib import import_module

import numpy as np

from pipeline.boxes import clip
from pipeline.errors import PipelineError

# Module of each backend. It has `group_regions(image) -> list of boxes [n x 4]`, one array a hierarchy: first the initial
# regions, then the merged ones in the order of merging, so that the last is the largest. Imported when it is asked for.
BACKENDS = {"selectivesearch": "pipeline.proposals.package"}

# selective_search_boxes.m of rbgirshick/rcnn (minBoxWidth): a box with a shorter side is dropped.
MIN_SIDE = 20


def propose(
    image: np.ndarray, backend: str = "selectivesearch", max_boxes: int = 2000, *, generator: np.random.Generator
) -> np.ndarray:
    """Region proposals of one image: float32 boxes [N x 4], N <= `max_boxes`, the most wanted first.

    `image` is uint8 RGB [H x W x 3]. Boxes are in pixels, whole numbers, 0-based with exclusive x2 and y2, inside the image, all
    different, no side under MIN_SIDE; none at all where the image itself has a shorter side. `generator` draws their order.

    Raises PipelineError when there is no such backend, the image is of another kind, or `max_boxes` < 1.
    """
    if backend not in BACKENDS:
        raise PipelineError(f"no proposal backend '{backend}'; choose one of {', '.join(sorted(BACKENDS))}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise PipelineError(f"proposals need a uint8 RGB image [H x W x 3], not {image.dtype} {list(image.shape)}; convert it")
    if max_boxes < 1:
        raise PipelineError(f"max_boxes is {max_boxes}; ask for at least 1 proposal an image")
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        return np.zeros((0, 4), np.float32)
    hierarchies = import_module(BACKENDS[backend]).group_regions(image)
    boxes = clip(merge_hierarchies(hierarchies, generator), height, width)
    return select_boxes(boxes, max_boxes)


def merge_hierarchies(hierarchies: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """The boxes of all hierarchies [n x 4] in one list, the most wanted first.

    A box's priority is its position counted from the last merge of its hierarchy (1 for the largest region), times a random
    number in [0, 1); smallest first (Uijlings et al. 2013, section 4.3; selective_search_boxes.m).
    """
    boxes = np.concatenate([np.zeros((0, 4)), *hierarchies])
    position = np.concatenate([np.zeros(0), *(np.arange(len(hierarchy), 0, -1) for hierarchy in hierarchies)])
    return boxes[np.argsort(position * generator.random(len(boxes)), kind="stable")]


def select_boxes(boxes: np.ndarray, max_boxes: int) -> np.ndarray:
    """The first `max_boxes` of `boxes` [N x 4], without those with a side under MIN_SIDE and without repetitions; float32."""
    boxes = boxes.astype(np.float32)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(axis=1)]
    _, first = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(first)[:max_boxes]]
