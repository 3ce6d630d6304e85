"""Selective search (Uijlings et al., IJCV 2013): boxes of the regions of many hierarchical groupings of one image.

An image is segmented in several colour spaces at several scales k; each segmentation is grouped bottom-up by several combinations
of similarities; the boxes of all hierarchies, ordered by a random priority that prefers large regions, are the proposals. The
paper's modes are `single`, `fast` and `quality` (table 5, and selective_search_boxes.m of rbgirshick/rcnn); `balanced` is ours.

What an image needs is computed once: a colour space's smoothing, sorted edges and texture gradients for all k, a segmentation's
region features and first similarities for all groupings. The compiled functions release the interpreter, so that threads
work on several images in parallel.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from pipeline.errors import PipelineError
from pipeline.proposals.colours import convert_colours
from pipeline.proposals.grouping import COLOUR, FILL, SIZE, TEXTURE, group, similarities
from pipeline.proposals.ranking import MIN_SIDE, NEAR, MaxOverlap, merge_hierarchies, select_boxes
from pipeline.proposals.regions import MAX_PIXELS, describe_regions, pixel_bins
from pipeline.proposals.segmentation import join_edges, sort_edges


class Mode(NamedTuple):
    """The settings of a selective search.

    Every one of `colours` is segmented with every k of `scales` and grouped by every one of `groupings`, sets of similarities. An
    image with a side above `longest_side` pixels is shrunk to it first. Boxes with a side under `min_side` pixels are left out,
    and, if `near` is set, boxes that nearly repeat a more wanted one.
    """

    colours: tuple[str, ...]
    scales: tuple[float, ...]
    groupings: tuple[tuple[int, ...], ...]
    longest_side: int | None = None
    min_side: int = MIN_SIDE
    near: MaxOverlap | None = None


ALL_FOUR, NO_COLOUR, NO_TEXTURE = (COLOUR, TEXTURE, SIZE, FILL), (TEXTURE, SIZE, FILL), (COLOUR, SIZE, FILL)
FIVE_COLOURS = ("hsv", "lab", "rgi", "hue", "intensity")

# `balanced` was chosen by measurement on 500 photographs of PASCAL VOC trainval. More colour spaces and more ways to group find
# more than more scales do; a shrunk image takes less time and gives fewer boxes of the same recall; leaving out near repetitions
# makes room for others, most of all among small boxes. Rankings by learnt scores, by consensus of the hierarchies and by size
# were no better than the paper's. The paper's modes leave out nothing but equal boxes, as the release does.
MODES = {
    "balanced": Mode(FIVE_COLOURS, (75,), (ALL_FOUR, NO_COLOUR, NO_TEXTURE, (FILL,)), 400, 12, NEAR),
    "single": Mode(("hsv",), (100,), (ALL_FOUR,)),
    "fast": Mode(("hsv", "lab"), (50, 100), (ALL_FOUR, NO_COLOUR)),
    "quality": Mode(FIVE_COLOURS, (50, 100, 150, 300), (ALL_FOUR, NO_COLOUR, (FILL,), (SIZE,))),
}


def selective_search(
    image: np.ndarray,
    mode: str = "balanced",
    seed: int | np.random.Generator = 0,
    max_boxes: int | None = None,
    image_width: int | None = None,
) -> np.ndarray:
    """Region proposals of one image: float32 boxes [N x 4], the most wanted first, at most `max_boxes` of them.

    `image` is uint8 RGB [H x W x 3]. Boxes are in its pixels, whole numbers, 0-based with exclusive x2 and y2, inside the image,
    all different, no side under the mode's shortest (20 pixels, 12 in `balanced`); `seed` draws their order. `image_width` has
    the image resized to this width first, as the release's detector does (rcnn_detect.m: 500), instead of the mode's own
    shrinking.

    Raises PipelineError for another mode, an image of another kind or size, or `max_boxes` or `image_width` below 1.
    """
    if mode not in MODES:
        raise PipelineError(f"no mode '{mode}' of selective search; choose one of {', '.join(MODES)}")
    check_request(image, max_boxes, image_width)
    settings = MODES[mode]
    resized = resize(image, image_width, settings.longest_side)
    if resized.shape[0] * resized.shape[1] > MAX_PIXELS:
        raise PipelineError(
            f"an image of {resized.shape[1]} x {resized.shape[0]} pixels is too large for selective search; "
            f"set image_width so that it has at most {MAX_PIXELS}"
        )
    hierarchies = [map_back(boxes, resized.shape, image.shape) for boxes in group_regions(resized, settings)]
    boxes = merge_hierarchies(hierarchies, np.random.default_rng(seed))
    return select_boxes(boxes, image.shape[:2], max_boxes, min_side=settings.min_side, near=settings.near)


def group_regions(image: np.ndarray, settings: Mode) -> list[np.ndarray]:
    """The boxes of every hierarchy, int32 [n x 4], by colour space, then scale, then grouping.

    `image` is uint8 RGB [H x W x 3]; it is not resized. A hierarchy's boxes are those of the initial regions, then those of the
    merged ones in the order of merging; the last is the image's.
    """
    pixels = image.shape[0] * image.shape[1]
    hierarchies = []
    for colours in settings.colours:
        channels = convert_colours(image, colours)
        edges, bins = sort_edges(channels), pixel_bins(channels)
        for k in settings.scales:
            regions = describe_regions(join_edges(edges, k), bins)
            similarity = similarities(regions, pixels)
            hierarchies += [group(regions, similarity, chosen, pixels) for chosen in settings.groupings]
    return hierarchies


def check_request(image: np.ndarray, max_boxes: int | None, image_width: int | None) -> None:
    """Raises PipelineError unless proposals can be made."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise PipelineError(f"proposals need a uint8 RGB image [H x W x 3], not {image.dtype} {list(image.shape)}; convert it")
    if max_boxes is not None and max_boxes < 1:
        raise PipelineError(f"max_boxes is {max_boxes}; ask for at least 1 proposal an image")
    if image_width is not None and image_width < 1:
        raise PipelineError(f"image_width is {image_width}; give a width of at least 1 pixel, or none")


def resize(image: np.ndarray, width: int | None = None, longest_side: int | None = None) -> np.ndarray:
    """`image` [H x W x 3] at this `width`, or else shrunk, where it is larger, to this `longest_side`."""
    scale = width / image.shape[1] if width else min(1.0, (longest_side or np.inf) / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def map_back(boxes: np.ndarray, resized: tuple[int, ...], size: tuple[int, ...]) -> np.ndarray:
    """`boxes` [n x 4] of an image `resized` from `size` (height, width, ...), in whole pixels of the latter."""
    if resized[:2] == size[:2]:
        return boxes
    return np.rint(boxes * np.tile([size[1] / resized[1], size[0] / resized[0]], 2))
