"""Region proposals by any of the methods.

Shape shorthand: H x W image, N proposals.
"""

import numpy as np

from pipeline.errors import PipelineError
from pipeline.proposals import METHODS, OWN
from pipeline.proposals.ranking import merge_hierarchies, select_boxes
from pipeline.proposals.selective_search import check_request, map_back, resize, selective_search
from pipeline.seeding import make_generator


def propose(
    image: np.ndarray, method: str, max_boxes: int | None, seed: int | np.random.Generator, image_width: int | None = None
) -> np.ndarray:
    """Region proposals of one image by one of METHODS: float32 boxes [N x 4], highest priority first; all, or the first
    `max_boxes`.

    `image` is uint8 RGB [H x W x 3]. Boxes are in its pixels, whole numbers, 0-based with exclusive x2 and y2, inside the image,
    all different, no side under 20 pixels (12 in `balanced`). `seed` draws their order. With `image_width` the image is first
    resized to this width.

    Raises PipelineError for an unknown method, a missing package or an image of another kind, and when a number
    is below 1.
    """
    if method not in METHODS:
        raise PipelineError(f"no proposals '{method}'; choose one of {', '.join(METHODS)}")
    if method in OWN:
        return selective_search(image, method, seed, max_boxes, image_width)

    check_request(image, max_boxes, image_width)
    resized, generator = resize(image, image_width), np.random.default_rng(seed)
    if method == "selectivesearch":
        from pipeline.proposals.package import group_regions

        boxes = merge_hierarchies(group_regions(resized), generator)
    else:
        from pipeline.proposals.opencv import find_boxes

        boxes = find_boxes(resized, generator, quality=method == "opencv-quality")
    return select_boxes(map_back(boxes, resized.shape, image.shape), image.shape[:2], max_boxes)


def propose_for(
    image: np.ndarray, name: str, *, method: str, max_boxes: int, image_width: int, seed: int
) -> tuple[np.ndarray, int]:
    """`propose` for the image called `name`, which seeds its draws: the first `max_boxes`, and how many more there were.

    `image_width` 0: the method's own.
    """
    # All are made anyway. How many of them would stay is only known after the last.
    boxes = propose(image, method, None, make_generator(seed, "proposals", name), image_width or None)
    return boxes[:max_boxes], max(0, len(boxes) - max_boxes)
